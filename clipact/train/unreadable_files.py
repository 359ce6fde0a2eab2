"""Files that a run cannot read: counted, named with their causes, and an error when there are more than allowed."""

from collections.abc import Iterable, Mapping
from itertools import islice

from clipact.errors import DataError


def count_unreadable(known: dict[str, str], found: Iterable[tuple[str, str]], *, limit: int) -> None:
    """Add files and their causes to those that are known.

    Raises:
        DataError: There are more than the limit, `max_unreadable` of a recipe.
    """
    known.update(found)
    if len(known) > limit:
        raise DataError(
            f"{len(known)} files could not be read, more than max_unreadable = {limit}; {describe_unreadable(known)}"
        )


def describe_unreadable(known: Mapping[str, str]) -> str:
    """Return the first five files with their causes, and how to find the others."""
    named = [f"{path}: {cause}" for path, cause in islice(known.items(), 5)]
    return "; ".join(named) + ". `clipact data check` finds all of them"
