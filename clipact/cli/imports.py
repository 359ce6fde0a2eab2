"""torch's import is half of what a short command takes: here it is made as short as it goes."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# A thread that decodes meanwhile asks for the interpreter's lock at each packet, and would wait up to 5 ms each time:
# of 60 s of 1080p it decodes three quarters while torch is imported, not half (two cores).
_LOCK_SECONDS = 0.0005


@contextmanager
def quick_imports() -> Iterator[None]:
    """What is imported inside stays until the end: nobody looks through it for garbage, now or later.

    That would cost 0.15 s in torch's import, and 0.1 s in what follows.
    """
    interval, collecting = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(_LOCK_SECONDS)
    gc.disable()
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.freeze()
        if collecting:
            gc.enable()
