"""Labels judged one by one: each against the background words, however likely the other labels are.

With logit l of a label and the background's b, its probability is exp(l) / (exp(l) + sum exp(b)): that of the label in
a softmax where it stands alone among everything else that could be going on.
"""

import numpy as np
from jaxtyping import Bool, Float

from clipact.calibration.temperature import log_sum_exp

UNCALIBRATED = 0.5
"""The threshold of a label of which no clip was seen: likelier than all background words together."""


def independent_probabilities(
    logits: Float[np.ndarray, "n l"], background: Float[np.ndarray, "n b"]
) -> Float[np.ndarray, "n l"]:
    """The probability of each label alone; a row does not sum to 1."""
    ahead = logits.astype(np.float64) - log_sum_exp(background)[:, None]
    return 1 / (1 + np.exp(-np.clip(ahead, -700, 700)))


def fit_thresholds(scores: Float[np.ndarray, "n l"], true: Bool[np.ndarray, "n l"]) -> Float[np.ndarray, " l"]:
    """For each label the threshold with the best F1 on these clips; the median of the others for a label without clips.

    A threshold lies halfway between the scores that it separates.
    """
    found = np.full(scores.shape[1], np.nan)
    for label in np.flatnonzero(true.any(0)):
        found[label] = _best_threshold(scores[:, label], true[:, label])
    return np.where(np.isnan(found), np.nanmedian(found) if true.any() else UNCALIBRATED, found)


def _best_threshold(scores: Float[np.ndarray, " n"], true: Bool[np.ndarray, " n"]) -> float:
    order = np.argsort(-scores, kind="stable")
    ordered, right = scores[order], np.cumsum(true[order])
    taken = np.arange(1, len(scores) + 1)
    last = np.append(ordered[1:] != ordered[:-1], True)  # equal scores are taken together
    f1 = np.where(last, 2 * right / (taken + right[-1]), -1.0)
    best = int(f1.argmax())
    below = ordered[best + 1] if best + 1 < len(ordered) else 0.0
    return float((ordered[best] + below) / 2)
