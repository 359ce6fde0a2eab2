"""Labels judged one by one: each against the background words, however likely the other labels are.

With logit l of a label and the background's b, its odds are exp(l) / sum exp(b): those of the label in a softmax where
it stands alone among everything else that could be going on. On labelled clips they become probabilities that are
right as often as they say (Platt 1999, in Advances in Large Margin Classifiers; arXiv 1706.04599, section 4.1).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from clipact.calibration.temperature import log_sum_exp

UNCALIBRATED = 0.5
"""The threshold of a label of which no clip was seen: likelier than all background words together."""
_STEPS = 100  # of Newton's method: ten do


@dataclass(frozen=True, kw_only=True)
class IndependentProbabilities:
    """A label by itself has the probability sigmoid(slope x log odds + intercept); slope is above 0."""

    slope: float = 1.0
    intercept: float = 0.0

    def probabilities(
        self, logits: Float[np.ndarray, "n l"], background: Float[np.ndarray, "n b"]
    ) -> Float[np.ndarray, "n l"]:
        """Of each label; a row does not sum to 1."""
        return _sigmoid(self.slope * log_odds(logits, background) + self.intercept)


def log_odds(logits: Float[np.ndarray, "n l"], background: Float[np.ndarray, "n b"]) -> Float[np.ndarray, "n l"]:
    """Of each label against all background words together."""
    return logits.astype(np.float64) - log_sum_exp(background)[:, None]


def fit_independent(odds: Float[np.ndarray, "n l"], true: Bool[np.ndarray, "n l"]) -> IndependentProbabilities:
    """The slope and intercept, the same for all labels, under which what is true of these clips is likeliest.

    Newton's method; the targets are Platt's, a little inside 0 and 1, so that odds which part them do not run away.
    Where higher odds are not likelier to be true the slope is next to 0: odds say nothing then.
    """
    centre, spread = odds.mean(), max(float(odds.std()), 1e-9)
    features = np.stack([(odds.ravel() - centre) / spread, np.ones(odds.size)])
    count = int(true.sum())
    target = np.where(true.ravel(), (count + 1) / (count + 2), 1 / (true.size - count + 2))
    weights = np.array([0.0, np.log(target.mean() / (1 - target.mean()))])
    for _ in range(_STEPS):
        said = _sigmoid(weights @ features)
        curve = (features * (said * (1 - said))) @ features.T
        step = np.linalg.solve(curve + 1e-9 * np.eye(2), features @ (said - target))
        weights = weights - step / max(1.0, float(abs(step).max()))
        if abs(step).max() < 1e-10:
            break
    slope = max(float(weights[0]) / spread, 1e-6)
    return IndependentProbabilities(slope=slope, intercept=float(weights[1]) - slope * float(centre))


def _sigmoid(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return 1 / (1 + np.exp(-np.clip(values, -700, 700)))


def fit_thresholds(scores: Float[np.ndarray, "n l"], true: Bool[np.ndarray, "n l"]) -> Float[np.ndarray, " l"]:
    """The thresholds, one a label, with the best F1 over all pairs of a clip and a label; of equal ones the highest.

    For an F1 of f, what a label adds is 2 x right - f x said: each label takes its best, f is taken anew, and so on to
    the end (Dinkelbach 1967). A label that adds nothing is never said; the best F1 of each label by itself would say it
    of every clip instead (on sports22's train and dev 0.31 over all pairs, against 0.45). A threshold lies halfway
    between the scores that it separates. A label without clips gets the median of the others.
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    ordered = np.take_along_axis(scores, order, 0)
    right = np.cumsum(np.take_along_axis(true, order, 0), axis=0)
    said = np.arange(1, len(scores) + 1)[:, None]
    may_end = np.vstack([ordered[1:] != ordered[:-1], np.ones((1, len(right.T)), bool)])  # equal scores go together
    labels, f1 = np.arange(scores.shape[1]), -1.0
    taken, better = np.zeros(len(labels), int), 0.0
    while better > f1:
        f1 = better
        gains = np.where(may_end, 2 * right - f1 * said, -np.inf)
        taken = np.vstack([np.zeros((1, len(labels))), gains]).argmax(0)
        found = np.where(taken > 0, right[taken - 1, labels], 0).sum()
        better = float(2 * found / max(1, taken.sum() + true.sum()))
    above, below = np.vstack([np.ones((1, len(labels))), ordered]), np.vstack([ordered, np.zeros((1, len(labels)))])
    thresholds = (above[taken, labels] + below[taken, labels]) / 2
    seen = true.any(0)
    return np.where(seen, thresholds, np.median(thresholds[seen]) if seen.any() else UNCALIBRATED)
