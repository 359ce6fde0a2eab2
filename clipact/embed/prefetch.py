"""Videos decoded ahead of whoever consumes them, in threads: decoders release the interpreter's lock.

Decoding begins when `decode_ahead` is called, not when its result is first asked for: the command line calls it
before it imports torch, and finds the first video decoded when the model is ready.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from clipact.clip_spec import ClipSpec
from clipact.errors import VideoError
from clipact.video.clip import Clip
from clipact.video.load import load_clips

T = TypeVar("T")
R = TypeVar("R")


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
    return work_ahead(lambda source: decode_one(source, spec, **options), sources, depth=depth)


def decode_one(source: str | Path, spec: ClipSpec, **options: Any) -> Decoded:
    """What a source decodes to, or its VideoError; `options` go to `load_clips`."""
    try:
        return Decoded(str(source), load_clips(source, spec, **options))
    except VideoError as error:
        return Decoded(str(source), (), error)


def work_ahead(work: Callable[[T], R], items: Iterable[T], *, depth: int = 2, workers: int = 1) -> Iterator[R]:
    """What `work` makes of each item, in order, made in `workers` threads, up to `depth` of them ahead.

    At most `depth` results are held, however slow the consumer is. What `work` raises is raised in its item's place.
    """
    waiting = iter(items)
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="decode")
    ahead: deque[Future[R]] = deque(pool.submit(work, item) for item in islice(waiting, depth))

    def drain() -> Iterator[R]:
        try:
            while ahead:
                ready = ahead.popleft().result()
                ahead.extend(pool.submit(work, item) for item in islice(waiting, 1))
                yield ready
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    return drain()
