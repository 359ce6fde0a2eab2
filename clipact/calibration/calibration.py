"""A calibration: what was fitted on labelled clips, whose answers it is of, and the small file that holds both.

JSON with a sha256 of what it says, read strictly. It brings its own labels, sentences and way of looking at a video,
and is for these alone.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from clipact.aliases import rename
from clipact.atomic_write import atomic_write
from clipact.calibration.conformal import label_sets
from clipact.calibration.multi_label import IndependentProbabilities
from clipact.calibration.ood_score import OOD_SCORES
from clipact.config import parse, to_table
from clipact.data.protocol import Views
from clipact.errors import CalibrationError, ConfigError, UsageError, choices
from clipact.metrics import probabilities
from clipact.prompts import LabelSet, PromptSet, clean


@dataclass(frozen=True, kw_only=True)
class CalibratedScores:
    """What is said of one clip.

    probabilities  of each label
    label_set      ids of the labels that hold the right one in `coverage` of clips, likeliest first
    in_set_score   the clip's score, higher where a label fits; below the threshold it is `none_of_these`
    independent    the probability of each label by itself; `accepted` are those that reach their own thresholds
    """

    probabilities: Float[np.ndarray, " l"]
    label_set: tuple[int, ...]
    in_set_score: float
    none_of_these: bool
    independent: Float[np.ndarray, " l"]
    accepted: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CalibrationParams:
    """Fitted numbers.

    temperature           divides logits
    coverage              how often a label set holds the right label; `quantile` of 1 - its probability
    score                 of `ood_score.OOD_SCORES`; a clip below `threshold` fits none of the labels
    false_rejection_rate  the share of clips that fit a label and are rejected all the same
    independent           gives the probability of each label by itself; `thresholds` are of these, one a label
    """

    temperature: float
    coverage: float
    quantile: float
    score: str
    false_rejection_rate: float
    threshold: float
    independent: IndependentProbabilities
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        alone = (self.independent.slope, self.independent.intercept)
        numbers = (self.temperature, self.quantile, self.threshold, *alone, *self.thresholds)
        if not all(map(math.isfinite, numbers)) or self.temperature <= 0 or self.independent.slope <= 0:
            raise ConfigError("all numbers of CalibrationParams are finite, its temperature and its slope above 0")
        if not 0 < self.coverage < 1 or not 0 < self.false_rejection_rate < 1:
            raise ConfigError(
                f"coverage is {self.coverage}, false_rejection_rate {self.false_rejection_rate}; between 0 and 1"
            )
        if self.score not in OOD_SCORES:
            raise ConfigError(f"score is {self.score!r}; {choices(self.score, OOD_SCORES)}")

    def of(self, logits: Float[np.ndarray, " l"], background: Float[np.ndarray, " b"]) -> CalibratedScores:
        """The verdict on a clip from its logits for the labels and for the background words."""
        own, other = logits[None], background[None]
        shares = probabilities(own / self.temperature)
        inside = label_sets(shares, quantile=self.quantile)[0]
        in_set_score = float(OOD_SCORES[self.score](own, other, self.temperature)[0])
        alone = self.independent.probabilities(own, other)[0]
        order = np.argsort(-shares[0], kind="stable").tolist()
        return CalibratedScores(
            probabilities=shares[0],
            label_set=tuple(label for label in order if inside[label]),
            in_set_score=in_set_score,
            none_of_these=in_set_score < self.threshold,
            independent=alone,
            accepted=tuple(np.flatnonzero(alone >= np.array(self.thresholds)).tolist()),
        )


@dataclass(frozen=True, kw_only=True)
class FitMetrics:
    """What the fit does on the half of the clips that its temperature was not fitted on.

    calibration_error, loss  the expected calibration error and the mean -log p of the truth, before and after
    top_1                    the share of right answers
    set_size                 the mean number of labels in a set
    auroc                    of each score, of all clips, with half of the labels hidden
    """

    clips: int
    top_1: float
    calibration_error_before: float
    calibration_error_after: float
    loss_before: float
    loss_after: float
    set_size: float
    auroc: dict[str, float]


FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class CalibrationTarget:
    """Whose answers they are.

    model, model_key  the model's name, and the hash of its weights
    labels            what is chosen from
    background        the phrases that labels are weighed against
    prompts           the sentences that both are put into
    sentences         a hash of every sentence: `text_classifier.wording_key` of labels and background
    views             how a video is looked at
    """

    model: str
    model_key: str
    labels: LabelSet
    background: tuple[str, ...]
    prompts: PromptSet
    sentences: str
    views: Views

    def __post_init__(self) -> None:
        said = (*self.labels.labels, *self.labels.phrases, *self.background)
        if any(clean(text) != text for text in said):
            raise ConfigError("a label or a phrase is not clean text")
        if not self.background:
            raise ConfigError("there is no background word")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Fitted numbers, what they are of, how well they did, and the clips that they were fitted on.

    groups  how many of these are independent of each other: groups of clips, or the clips themselves
    """

    target: CalibrationTarget
    params: CalibrationParams
    source: str
    clips: int
    groups: int
    metrics: FitMetrics

    def __post_init__(self) -> None:
        if len(self.params.thresholds) != len(self.target.labels):
            raise ConfigError(f"{len(self.target.labels)} labels, {len(self.params.thresholds)} thresholds")

    def save(self, path: str | Path) -> Path:
        """Write the file in one step, over an older calibration; CalibrationError when it cannot be written."""
        path, table = check_out_path(path), to_table(self)
        whole = {"format": FORMAT, "sha256": _digest(table), "calibration": table}
        text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                file.write(text.encode())
        except OSError as error:
            raise CalibrationError(f"{path} cannot be written: {error.strerror or error}") from error
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Calibration":
        """The calibration in a file; CalibrationError when there is none that can be used."""
        try:
            whole = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise CalibrationError(
                f"{path}: {error.strerror or error}; `clipact calibrate` makes a calibration"
            ) from error
        except (ValueError, RecursionError) as error:
            raise CalibrationError(f"{path} is no calibration, as `clipact calibrate` makes one: {error}") from error
        if not _is_calibration(whole):
            raise CalibrationError(f"{path} is no calibration, as `clipact calibrate` makes one")
        if whole["format"] != FORMAT:
            raise CalibrationError(
                f"{path} is of format {whole['format']!r}; this version of clipact reads {FORMAT}: calibrate again"
            )
        table = whole["calibration"]
        try:
            if whole["sha256"] != _digest(table):
                raise CalibrationError(f"{path} is damaged: its contents are not those that were written")
            return parse(cls, rename(table, "calibration"))
        except (UsageError, TypeError, AttributeError) as error:
            raise CalibrationError(f"{path} is damaged: {error}") from error


def check_out_path(path: str | Path) -> Path:
    """The path, when there is nothing or a calibration; CalibrationError when anything else lies there."""
    path = Path(path)
    try:
        free = not path.exists() or _is_calibration(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        free = False
    if not free:
        raise CalibrationError(f"{path} is there and is no calibration; name another place for one")
    return path


def _is_calibration(whole: Any) -> bool:
    return isinstance(whole, dict) and {"format", "sha256", "calibration"} <= whole.keys()


def _digest(table: Any) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
