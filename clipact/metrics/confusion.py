"""Which label was answered for which."""

import numpy as np
from jaxtyping import Int


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
