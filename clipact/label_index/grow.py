"""FAISS's part of an index is brought up to date with its rows: trained when there is none, else only added to."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from clipact.label_index import approximate
from clipact.label_index.choice import TAIL_NUMBERS, choose_kind, training_rows
from clipact.label_index.index import LabelIndex
from clipact.label_index.quality import with_quality
from clipact.label_index.table import Nearest, Table

Watch = Callable[[Iterable[Any], int | None, str], Iterable[Any]]
"""Is handed what is worked through, how much that is when it is known, and what is done to it, in a word."""

_SAVE_SECONDS = 300


def unwatched(items: Iterable[Any], total: int | None, what: str) -> Iterable[Any]:
    """The items."""
    return items


def grow(
    index: LabelIndex, *, whole: bool, watch: Watch = unwatched, keep: Callable[[Table], None] | None = None
) -> Table:
    """The index's table with a file of FAISS's as its plan says.

    Few rows beyond those that FAISS knows are left to be compared one by one, unless `whole`. `keep` is handed a table
    that can be gone on from, every five minutes.
    """
    table, rows = index.table, index.rows
    choice = choose_kind(len(index), table.about.dim, table.plan)
    if choice.kind == "exact" or not len(index):
        return replace(table, nearest=None, quality=None)
    nearest = table.nearest if table.nearest is not None and table.nearest.kind == choice.kind else None
    if nearest is not None:
        tail = len(rows) - nearest.rows
        if (tail == 0 and table.quality is not None) or (not whole and tail * table.about.dim <= TAIL_NUMBERS):
            return table
        recipe, start = nearest.recipe, nearest.rows
        path = index.folder.path / nearest.file.name
        found = approximate.read(path, nearest, dim=table.about.dim, writable=True)
    else:
        recipe, start = choice.recipe, 0
        found = _trained(index, recipe)

    def written(end: int) -> Table:
        path = index.folder.fresh("faiss")
        approximate.write(found, path)
        file = index.folder.adopt(path)
        return replace(
            table, nearest=Nearest(kind=choice.kind, recipe=recipe, rows=end, width=1, file=file), quality=None
        )

    end, saved = start, time.monotonic()
    for first, vectors in watch(rows.blocks(start=start), _blocks(index, start), choice.kind):
        approximate.add(found, vectors)
        end = first + len(vectors)
        if keep is not None and end < len(rows) and time.monotonic() - saved > _SAVE_SECONDS:
            keep(written(end))
            saved = time.monotonic()
    done = written(end)
    del found  # the file is mapped from here on: not twice in memory
    return with_quality(LabelIndex(index.folder, done), recall=table.plan.recall).table


def _trained(index: LabelIndex, recipe: str) -> Any:
    count = training_rows(recipe, len(index.rows))
    sample = np.random.default_rng(0).choice(len(index.rows), count, replace=False)
    return approximate.train(recipe, index.rows.vectors(np.sort(sample).astype(np.int64)))


def _blocks(index: LabelIndex, start: int) -> int:
    return sum(1 for _ in index.rows.spans(start=start))
