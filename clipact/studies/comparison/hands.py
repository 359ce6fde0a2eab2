"""What carries a comparison out and shows how far it is; nothing here changes what is found."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from clipact.store import Store
from clipact.training.course import Course
from clipact.training.frozen import Watch
from clipact.training.report import Report


def _watch(items: Iterable[Any], _total: int, _what: str) -> Iterable[Any]:
    return items


def _follow(_: Course, reports: Iterator[Report]) -> None:
    for _report in reports:
        pass


@dataclass(frozen=True, kw_only=True)
class Hands:
    """Where it runs, and who watches.

    watch   is handed what is gone through, its number, and what is done with it
    follow  takes a training run to its end; where it sets `stopping`, the comparison ends in KeyboardInterrupt
    """

    device: str = "auto"
    store: Store = field(default_factory=Store)
    watch: Watch = _watch
    follow: Callable[[Course, Iterator[Report]], None] = _follow
