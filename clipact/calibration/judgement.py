"""What the numbers of a calibration make of one clip."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from clipact.calibration.conformal import label_sets
from clipact.calibration.multi_label import Independent
from clipact.calibration.rejection import SCORES
from clipact.errors import ConfigError, choices
from clipact.metrics import probabilities


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is said of one clip.

    probabilities  of each label
    label_set      ids of the labels that hold the right one in `coverage` of clips, likeliest first
    fit            the rejection score; below the threshold it is `none_of_these`
    independent    the probability of each label by itself; `accepted` are those that reach their own thresholds
    """

    probabilities: Float[np.ndarray, " l"]
    label_set: tuple[int, ...]
    fit: float
    none_of_these: bool
    independent: Float[np.ndarray, " l"]
    accepted: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Fitted numbers.

    temperature       divides logits
    coverage          how often a label set holds the right label; `quantile` of 1 - its probability
    score             of `rejection.SCORES`; a clip below `threshold` fits none of the labels
    false_rejections  the share of clips that fit a label and are rejected all the same
    independent       gives the probability of each label by itself; `thresholds` are of these, one a label
    """

    temperature: float
    coverage: float
    quantile: float
    score: str
    false_rejections: float
    threshold: float
    independent: Independent
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        alone = (self.independent.slope, self.independent.intercept)
        numbers = (self.temperature, self.quantile, self.threshold, *alone, *self.thresholds)
        if not all(map(math.isfinite, numbers)) or self.temperature <= 0 or self.independent.slope <= 0:
            raise ConfigError("all numbers of a judgement are finite, its temperature and its slope above 0")
        if not 0 < self.coverage < 1 or not 0 < self.false_rejections < 1:
            raise ConfigError(f"coverage is {self.coverage}, false_rejections {self.false_rejections}; between 0 and 1")
        if self.score not in SCORES:
            raise ConfigError(f"score is {self.score!r}; {choices(self.score, SCORES)}")

    def of(self, logits: Float[np.ndarray, " l"], background: Float[np.ndarray, " b"]) -> Verdict:
        """The verdict on a clip from its logits for the labels and for the background words."""
        own, other = logits[None], background[None]
        shares = probabilities(own / self.temperature)
        inside = label_sets(shares, quantile=self.quantile)[0]
        fit = float(SCORES[self.score](own, other, self.temperature)[0])
        alone = self.independent.probabilities(own, other)[0]
        order = np.argsort(-shares[0], kind="stable").tolist()
        return Verdict(
            probabilities=shares[0],
            label_set=tuple(label for label in order if inside[label]),
            fit=fit,
            none_of_these=fit < self.threshold,
            independent=alone,
            accepted=tuple(np.flatnonzero(alone >= np.array(self.thresholds)).tolist()),
        )
