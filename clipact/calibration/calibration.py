"""A calibration: what was fitted on labelled clips, whose answers it is of, and the small file that holds both.

JSON with a sha256 of what it says, read strictly. It brings its own labels, sentences and way of looking at a video,
and is for these alone.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipact.calibration.fit import Figures
from clipact.calibration.judgement import Judgement
from clipact.config import parse, to_table
from clipact.errors import CalibrationError, ConfigError, UsageError
from clipact.prompts import LabelSet, PromptSet, clean
from clipact.protocol import Views
from clipact.replacing import replacing

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Whose answers they are.

    model, model_key  the model's name, and the hash of its weights
    labels            what is chosen from
    background        the phrases that labels are weighed against
    prompts           the sentences that both are put into
    sentences         a hash of every sentence: `label_vectors.words_key` of labels and background
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

    answers: Answers
    judgement: Judgement
    source: str
    clips: int
    groups: int
    figures: Figures

    def __post_init__(self) -> None:
        if len(self.judgement.thresholds) != len(self.answers.labels):
            raise ConfigError(f"{len(self.answers.labels)} labels, {len(self.judgement.thresholds)} thresholds")

    def save(self, path: str | Path) -> Path:
        """Write the file in one step, over an older calibration; CalibrationError when it cannot be written."""
        path, table = free_place(path), to_table(self)
        whole = {"format": FORMAT, "sha256": _digest(table), "calibration": table}
        text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
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
            return parse(cls, table)
        except (UsageError, TypeError, AttributeError) as error:
            raise CalibrationError(f"{path} is damaged: {error}") from error


def free_place(path: str | Path) -> Path:
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
