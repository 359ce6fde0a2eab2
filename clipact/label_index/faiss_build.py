"""FAISS's part of an index is brought up to date with its rows: trained when there is none, else only added to."""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from clipact.errors import LabelIndexError
from clipact.label_index import faiss as approximate
from clipact.label_index.index import LabelIndex
from clipact.label_index.metadata import FaissSettings, IndexKind, IndexManifest, IndexPlan
from clipact.label_index.quality import with_quality

EXACT_NUMBERS = 200_000_000  # 40 ms a query on two cores (eval/benchmarks/label_index_scale.py), what a clip takes
TAIL_NUMBERS = 10_000_000  # added since FAISS's file was written, and compared one by one
_LINKS = 32  # of HNSW: each row has 64 in the lowest layer
_LISTS = (64, 65_536)  # the fewest and the most of IVF
_SUBVECTOR = 8  # numbers that share a byte


@dataclass(frozen=True, kw_only=True)
class IndexType:
    """A kind, the recipe from which FAISS's factory makes it, how much memory it takes, and why it is this one."""

    kind: IndexKind
    recipe: str
    bytes: int
    why: str


def choose_index_type(count: int, dim: int, plan: IndexPlan) -> IndexType:
    """What suits so many vectors of that width; without `plan.memory_bytes`, half of this machine's memory is had."""
    memory = plan.memory_bytes if plan.memory_bytes is not None else _half_of_memory()
    hnsw_bytes = count * (2 * dim + 8 * _LINKS + 24)
    if plan.kind is not None:
        kind, why = plan.kind, "asked for"
    elif count * dim <= EXACT_NUMBERS:
        kind, why = "exact", f"{count:,} x {dim} numbers are at most {EXACT_NUMBERS:,}"
    elif hnsw_bytes <= memory:
        kind, why = "hnsw", f"{hnsw_bytes / 1e9:.1f} GB fit into {memory / 1e9:.1f} GB"
    else:
        kind, why = "ivf-pq", f"HNSW's {hnsw_bytes / 1e9:.1f} GB do not fit into {memory / 1e9:.1f} GB"
    if kind == "exact":
        return IndexType(kind=kind, recipe="", bytes=0, why=why)
    if kind == "hnsw":
        return IndexType(kind=kind, recipe=f"HNSW{_LINKS}_SQfp16", bytes=hnsw_bytes, why=why)
    lists, codes = _lists(count), _codes(dim)
    recipe = f"IVF{lists},PQ{codes}"
    return IndexType(kind=kind, recipe=recipe, bytes=count * (codes + 8) + lists * 4 * dim, why=why)


def training_rows(recipe: str, count: int) -> int:
    """How many rows teach a recipe: 64 for each list of IVF, and no fewer than 20,000 where there are so many."""
    lists = int(recipe.split(",")[0].removeprefix("IVF")) if recipe.startswith("IVF") else 1
    return min(count, max(20_000, 64 * lists))


def _lists(count: int) -> int:
    """The power of two next to the square root of the count."""
    return max(_LISTS[0], min(_LISTS[1], 1 << round(count**0.5).bit_length()))


def _codes(dim: int) -> int:
    """How many bytes a code has: the largest divisor of the width that leaves eight numbers or more to a byte."""
    return next(codes for codes in range(max(1, dim // _SUBVECTOR), 0, -1) if dim % codes == 0)


def _half_of_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError) as error:
        raise LabelIndexError("this machine does not say how much memory it has; name it with --memory") from error


Watch = Callable[[Iterable[Any], int | None, str], Iterable[Any]]
"""Is handed what is worked through, how much that is when it is known, and what is done to it, in a word."""

_SAVE_SECONDS = 300


def unwatched(items: Iterable[Any], total: int | None, what: str) -> Iterable[Any]:
    """The items."""
    return items


def build_faiss(
    index: LabelIndex, *, whole: bool, watch: Watch = unwatched, keep: Callable[[IndexManifest], None] | None = None
) -> IndexManifest:
    """The index's table with a file of FAISS's as its plan says.

    Few rows beyond those that FAISS knows are left to be compared one by one, unless `whole`. `keep` is handed a table
    that can be gone on from, every five minutes.
    """
    table, rows = index.table, index.rows
    choice = choose_index_type(len(index), table.about.dim, table.plan)
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

    def written(end: int) -> IndexManifest:
        path = index.folder.fresh("faiss")
        approximate.write(found, path)
        file = index.folder.adopt(path)
        return replace(
            table, nearest=FaissSettings(kind=choice.kind, recipe=recipe, rows=end, width=1, file=file), quality=None
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
