"""Label sets that hold the right label as often as was asked for (split conformal prediction, arXiv 2107.07511, 1).

A set holds every label whose probability is at least 1 - quantile (Sadinle et al., arXiv 1609.00451). Where clips are
exchangeable with those that the quantile was taken from, sets miss the right label in at most 1 - coverage of them.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int


def upper_quantile(values: Float[np.ndarray, " n"], *, share: float) -> float:
    """What a new value exceeds with a chance of at most 1 - share: the ceil((n + 1) share)-th smallest.

    inf when `fewest(share)` values are not there.
    """
    rank = math.ceil((len(values) + 1) * share - 1e-9)
    return float(np.sort(values)[rank - 1]) if rank <= len(values) else math.inf


def fewest(share: float) -> int:
    """How many values `upper_quantile` needs to say anything."""
    return math.ceil(share / (1 - share) - 1e-9)


def conformal_quantile(
    probabilities: Float[np.ndarray, "n l"], truth: Int[np.ndarray, " n"], *, coverage: float
) -> float:
    """The upper quantile of 1 - p(truth)."""
    return upper_quantile(1 - np.take_along_axis(probabilities, truth[:, None], 1)[:, 0], share=coverage)


def label_sets(probabilities: Float[np.ndarray, "n l"], *, quantile: float) -> Bool[np.ndarray, "n l"]:
    """Which labels are in each set; the best one always is."""
    inside = 1 - probabilities <= quantile
    inside[np.arange(len(inside)), probabilities.argmax(1)] = True
    return inside
