"""Which label was answered for which."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

Truth = Int[np.ndarray, " n"] | Bool[np.ndarray, "n l"]
"""The label of each sample; or, where several are true of one, which are."""

RightItems = Sequence[Int[np.ndarray, " _"]]
"""For each query the numbers of the items that are right, without repeats."""


def hits(scores: Float[np.ndarray, "n l"], truth: Truth, *, k: int = 1) -> Bool[np.ndarray, " n"]:
    """Whether each sample's own label, or one of its own, is among the k that score highest."""
    if truth.ndim == 1:
        right = np.take_along_axis(scores, truth[:, None], 1)
        return (~(scores < right)).sum(1) - 1 < k
    best = np.where(truth, scores, -np.inf).max(1, keepdims=True)
    return (~(scores < best) & ~truth).sum(1) < k


def top_k(scores: Float[np.ndarray, "n l"], truth: Truth, *, k: int = 1) -> float:
    """The share of samples whose own label, or one of its own, is among the k that score highest."""
    return float(hits(scores, truth, k=k).mean())


def per_class(right: Bool[np.ndarray, " n"], truth: Int[np.ndarray, " n"], *, labels: int) -> Float[np.ndarray, " l"]:
    """The share of right answers among the samples of each label; nan for a label that no sample has."""
    counts = np.bincount(truth, minlength=labels)
    with np.errstate(invalid="ignore"):
        return np.bincount(truth, weights=right, minlength=labels) / counts


def mean_per_class(right: Bool[np.ndarray, " n"], truth: Int[np.ndarray, " n"]) -> float:
    """The mean over labels of `per_class`, each of them counting alike however many samples it has.

    Labels without a sample do not count (scikit-learn's balanced accuracy).
    """
    return float(np.nanmean(per_class(right, truth, labels=int(truth.max()) + 1)))


def recall(scores: Float[np.ndarray, "q n"], right: RightItems, *, ks: Sequence[int]) -> dict[int, float]:
    """For each k the share of queries with a right item among the k that score highest.

    What is asked of Flickr8k's retrieval: one right picture for a caption, and any of five captions for a picture.
    A query without a right item counts as missed.
    """
    ranks = best_ranks(scores, right)
    return {k: float((ranks < min(k, scores.shape[1])).mean()) for k in ks}


def median_rank(ranks: Int[np.ndarray, " q"]) -> float:
    """The median of what `best_ranks` gives, counted from 1 as the field does: 1 is the best there can be."""
    return float(np.median(ranks)) + 1


def best_ranks(scores: Float[np.ndarray, "q n"], right: RightItems) -> Int[np.ndarray, " q"]:
    """How many wrong items stand before the best right one, for each query; n when there is no right one."""
    ranks = np.full(len(scores), scores.shape[1], dtype=np.int64)
    for row, (own, line) in enumerate(zip(right, scores, strict=True)):  # row by row: no second matrix
        if len(own):
            before = ~(line < line[own].max())
            ranks[row] = before.sum() - before[own].sum()
    return ranks


def match_captions(texts: Sequence[str], text_of: Int[np.ndarray, " m"], visuals: int) -> tuple[RightItems, RightItems]:
    """Which visuals are right for each text, and which texts for each visual.

    A caption that several visuals have is right for each of them, whichever of its copies is asked for.

    Args:
        texts: The captions of all visuals.
        text_of: The visual that each belongs to.
        visuals: How many visuals there are.
    """
    number_of: dict[str, int] = {}
    same = np.array([number_of.setdefault(text, len(number_of)) for text in texts], dtype=np.int64)
    copies = _rows_of(same, len(number_of))
    visuals_of_text = [np.unique(text_of[rows]) for rows in copies]
    texts_of_visual = [
        np.unique(np.concatenate([copies[number] for number in np.unique(same[own])])) if len(own) else own
        for own in _rows_of(text_of, visuals)
    ]
    return [visuals_of_text[number] for number in same], texts_of_visual


def _rows_of(ids: Int[np.ndarray, " m"], count: int) -> list[Int[np.ndarray, " _"]]:
    """The rows of each of `count` ids."""
    order = np.argsort(ids, kind="stable")
    return np.split(order, np.searchsorted(ids[order], np.arange(1, count))) if count else []


def confusion(answers: Int[np.ndarray, " n"], truth: Int[np.ndarray, " n"], *, labels: int) -> Int[np.ndarray, "l l"]:
    """How often each label (row: the true one) was answered with each (column)."""
    return np.bincount(truth * labels + answers, minlength=labels * labels).reshape(labels, labels)


def most_confused(matrix: Int[np.ndarray, "l l"], *, count: int = 10) -> list[tuple[int, int, int]]:
    """The pairs (true label, answered label, how often) that are confused most, worst first.

    Among equally frequent ones, first the pair that is the larger share of its true label, then the earlier label.
    """
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    totals = np.maximum(matrix.sum(1), 1)
    pairs = [(int(t), int(a), int(wrong[t, a])) for t, a in zip(*np.nonzero(wrong), strict=True)]
    pairs.sort(key=lambda pair: (-pair[2], -pair[2] / totals[pair[0]], pair[0], pair[1]))
    return pairs[:count]
