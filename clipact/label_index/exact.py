"""Search exactly, by comparing with every row, block by block."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from clipact.label_index.metadata import Neighbours


@dataclass(frozen=True, kw_only=True, eq=False)
class ExactResult:
    """The nearest, and when asked for log sum exp(scale x cosine) over all that was looked at."""

    nearest: Neighbours
    log_total: Float64[np.ndarray, " q"] | None = None


def search_exactly(
    queries: Float32[np.ndarray, "q d"],
    blocks: Iterator[tuple[int, Float[np.ndarray, "m d"]]],
    k: int,
    *,
    alive: Bool[np.ndarray, " n"] | None = None,
    scale: float | None = None,
) -> ExactResult:
    """The k nearest among the vectors of all blocks, by cosine, the lower row first among equals.

    Memory: one block and one q x block matrix of cosines.
    """
    best = no_neighbours(len(queries), k)
    highest, total = np.full(len(queries), -np.inf), np.zeros(len(queries))
    for first, cosines in _cosines(queries, blocks):
        if alive is not None:
            cosines[:, ~alive[first : first + cosines.shape[1]]] = -np.inf
        if scale is not None:
            logits = scale * cosines.astype(np.float64)
            top = np.maximum(highest, logits.max(1))
            # Where nothing counts yet the largest is -inf: 0 stands for it, and all terms are 0.
            finite = np.where(np.isneginf(top), 0.0, top)
            total = total * np.exp(highest - finite) + np.exp(logits - finite[:, None]).sum(1)
            highest = top
        better = np.flatnonzero((cosines > best.cosines[:, -1:]).any(1))  # an equal one has a higher row, and loses
        if len(better):
            own = Neighbours(rows=best.rows[better], cosines=best.cosines[better])
            own = merge(own, _top(cosines[better], first, k), k)
            best.rows[better], best.cosines[better] = own.rows, own.cosines
    with np.errstate(divide="ignore"):
        return ExactResult(nearest=best, log_total=None if scale is None else highest + np.log(total))


def _cosines(
    queries: Float32[np.ndarray, "q d"], blocks: Iterator[tuple[int, Float[np.ndarray, "m d"]]]
) -> Iterator[tuple[int, Float32[np.ndarray, "q m"]]]:
    """The first row of each block, and the queries' cosines with all of its rows.

    By torch where a model has loaded it, else by NumPy: 65,536 rows of 512 numbers in 16 bits take 85 and 190 ms, in 32
    bits 19 and 21, and NumPy's threads and torch's, one after the other, wait long. An import would cost 1.8 s.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        for first, vectors in blocks:
            yield first, queries @ vectors.astype(np.float32, copy=False).T
        return
    asked, room = torch.from_numpy(np.array(queries, dtype=np.float32)), torch.empty(0)
    for first, vectors in blocks:
        stored = torch.from_numpy(vectors)
        if stored.dtype != torch.float32:  # widened one after the other in the same memory
            if stored.numel() > room.numel():
                room = torch.empty(stored.numel())
            stored = room[: stored.numel()].view_as(stored).copy_(stored)
        yield first, (asked @ stored.T).numpy()


def no_neighbours(queries: int, k: int) -> Neighbours:
    """k places for each query, all of them empty."""
    return Neighbours(
        rows=np.full((queries, k), -1, dtype=np.int64), cosines=np.full((queries, k), -np.inf, dtype=np.float32)
    )


def merge(one: Neighbours, other: Neighbours, k: int) -> Neighbours:
    """The best k of both; nothing is in both."""
    rows = np.concatenate([one.rows, other.rows], axis=1)
    cosines = np.concatenate([one.cosines, other.cosines], axis=1)
    order = np.lexsort((np.where(rows < 0, np.iinfo(np.int64).max, rows), -cosines), axis=1)[:, :k]
    return Neighbours(rows=np.take_along_axis(rows, order, axis=1), cosines=np.take_along_axis(cosines, order, axis=1))


def _top(cosines: Float32[np.ndarray, "q m"], first: int, k: int) -> Neighbours:
    if cosines.shape[1] > k:
        # What equals the k-th is in by its row: argpartition alone would take any of the equals.
        edge = -np.partition(-cosines, k - 1, axis=1)[:, k - 1 : k]
        chosen = [_first_k(line, limit, k) for line, limit in zip(cosines, edge[:, 0], strict=True)]
        place = np.stack(chosen)
    else:
        place = np.broadcast_to(np.arange(cosines.shape[1]), cosines.shape)
    values = np.take_along_axis(cosines, place, axis=1)
    return Neighbours(rows=np.where(np.isneginf(values), -1, place + first), cosines=values)


def _first_k(line: Float32[np.ndarray, " m"], limit: np.float32, k: int) -> np.ndarray:
    above = np.flatnonzero(line > limit)
    return np.concatenate([above, np.flatnonzero(line == limit)[: k - len(above)]])
