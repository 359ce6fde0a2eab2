"""By what rule an index is exact, a graph or compressed lists. Arithmetic; nothing is read.

1. Up to EXACT_NUMBERS numbers everything is compared: that is fast enough, and never wrong.
2. Else HNSW (Malkov and Yashunin, arXiv 1603.09320), when its graph with vectors in 16 bits fits into the memory.
3. Else IVF-PQ (Jegou et al. 2011, doi 10.1109/TPAMI.2010.57): an eighth of a byte a number and eight bytes a row.

How far a search looks is then doubled until the recall@10 that is wanted is measured (clipact.label_index.quality).
"""

import os
from dataclasses import dataclass

from clipact.errors import LabelIndexError
from clipact.label_index.table import Kind, Plan

EXACT_NUMBERS = 200_000_000  # 40 ms a query on two cores (eval/benchmarks/label_index_scale.py), what a clip takes
TAIL_NUMBERS = 10_000_000  # added since FAISS's file was written, and compared one by one
_LINKS = 32  # of HNSW: each row has 64 in the lowest layer
_LISTS = (64, 65_536)  # the fewest and the most of IVF
_SUBVECTOR = 8  # numbers that share a byte


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A kind, the recipe from which FAISS's factory makes it, how much memory it takes, and why it is this one."""

    kind: Kind
    recipe: str
    bytes: int
    why: str


def choose_kind(count: int, dim: int, plan: Plan) -> Choice:
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
        return Choice(kind=kind, recipe="", bytes=0, why=why)
    if kind == "hnsw":
        return Choice(kind=kind, recipe=f"HNSW{_LINKS}_SQfp16", bytes=hnsw_bytes, why=why)
    lists, codes = _lists(count), _codes(dim)
    recipe = f"IVF{lists},PQ{codes}"
    return Choice(kind=kind, recipe=recipe, bytes=count * (codes + 8) + lists * 4 * dim, why=why)


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
