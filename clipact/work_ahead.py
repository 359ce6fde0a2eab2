"""Do work on items ahead, in threads, and give the results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def work_ahead(work: Callable[[T], R], items: Iterable[T], *, depth: int = 2, workers: int = 1) -> Iterator[R]:
    """Return what `work` makes of each item, in order, made in `workers` threads, up to `depth` of them ahead.

    Work begins when this is called, not when the first result is asked for. At most `depth` results are held, however
    slow the consumer is. What `work` raises is raised in its item's place.
    """
    waiting = iter(items)
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="ahead")
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
