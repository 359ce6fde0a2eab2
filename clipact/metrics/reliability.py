"""Whether a score of 80 % is right eight times in ten (arXiv 1706.04599, section 2)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class Bin:
    """Samples whose confidence lies in (low, high]; `confidence` and `right` are means, nan when there are none."""

    low: float
    high: float
    count: int
    confidence: float
    right: float


def probabilities(logits: Float[np.ndarray, "n l"]) -> Float[np.ndarray, "n l"]:
    """The softmax of each row, in 64 bits."""
    exponents = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


def reliability(
    confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], *, bins: int = 15
) -> tuple[Bin, ...]:
    """Samples in bins of equal width by their confidence, 0..1; a confidence of 0 lies in the first."""
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    found = []
    for number in range(bins):
        inside = place == number
        count = int(inside.sum())
        means = (float(confidence[inside].mean()), float(right[inside].mean())) if count else (np.nan, np.nan)
        found.append(Bin(float(edges[number]), float(edges[number + 1]), count, *means))
    return tuple(found)


def calibration_error(confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], *, bins: int = 15) -> float:
    """Expected calibration error: |confidence - share of right answers| a bin, weighted by its samples."""
    each = [bin for bin in reliability(confidence, right, bins=bins) if bin.count]
    return sum(bin.count * abs(bin.confidence - bin.right) for bin in each) / len(confidence)
