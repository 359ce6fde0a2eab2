"""Videos decoded ahead of whoever consumes them, in threads: decoders release the interpreter's lock.

Decoding begins when `decode_ahead` is called, not when its result is first asked for: the command line calls it
before it imports torch, and finds the first video decoded when the model is ready.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from clipact.clip_spec import ClipSpec
from clipact.errors import VideoError
from clipact.video.clip import Clip
from clipact.video.load import load_clips


@dataclass(frozen=True)
class Decoded:
    """A source and its clips, or the reason why it has none."""

    source: str
    clips: tuple[Clip, ...]
    error: VideoError | None = None


def decode_ahead(sources: Iterable[str | Path], spec: ClipSpec, *, depth: int = 2, **options: Any) -> Iterator[Decoded]:
    """What each source decodes to, in order, with up to `depth` videos decoded before they are asked for.

    `options` go to `load_clips`. An unreadable source yields its VideoError; it is never left out.
    """
    waiting = iter(sources)
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode")

    def decode(source: str | Path) -> Decoded:
        try:
            return Decoded(str(source), load_clips(source, spec, **options))
        except VideoError as error:
            return Decoded(str(source), (), error)

    ahead: deque[Future[Decoded]] = deque(pool.submit(decode, source) for source in islice(waiting, depth))

    def drain() -> Iterator[Decoded]:
        try:
            while ahead:
                ready = ahead.popleft().result()
                ahead.extend(pool.submit(decode, source) for source in islice(waiting, 1))
                yield ready
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    return drain()
