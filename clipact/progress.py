"""Progress bars, as functions that take one: what is gone through is handed to it and comes back item by item.

The command line gives bars that are drawn on stderr; without one nothing is shown.
"""

from collections.abc import Iterable
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class ProgressBar(Protocol):
    """Return the items one by one, and show how many of `total` have passed."""

    def __call__(self, items: Iterable[T], total: int | None, description: str, /) -> Iterable[T]:
        """Return the items, in their order.

        Args:
            items: What is gone through; taken one at a time.
            total: How many there are, None when nobody knows.
            description: What is done with them, such as "encoding".
        """
        ...


def no_progress(items: Iterable[T], total: int | None, description: str, /) -> Iterable[T]:
    """Return the items as they are and show nothing."""
    return items
