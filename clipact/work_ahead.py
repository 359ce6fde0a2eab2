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
    slow the consumer is. What `work` raises, or `items` while it is iterated, is raised in its place.
    """
    waiting = iter(items)
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="ahead")
    ahead: deque[Future[R]] = deque()

    def submit(count: int) -> None:
        try:
            ahead.extend(pool.submit(work, item) for item in islice(waiting, count))
        except Exception as error:  # of the items: those before it come first
            failed: Future[R] = Future()
            failed.set_exception(error)
            ahead.append(failed)

    submit(depth)

    def drain() -> Iterator[R]:
        try:
            while ahead:
                ready = ahead.popleft().result()
                submit(1)
                yield ready
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    return drain()
