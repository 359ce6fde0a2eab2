"""Files that are written beside their place and then renamed: a reader finds the old or the new, never a half."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` when the block ends, and is gone when it fails.

    Its name begins with a dot and ends in .part until then. OSError when the folder cannot be written to.
    """
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        Path(beside).chmod(mode)
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise
