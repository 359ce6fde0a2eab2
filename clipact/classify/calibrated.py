"""Classification that can say "none of these": labels weighed against background words, judged by a calibration.

Around a ZeroShotClassifier that has the background words after one's labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from clipact.cache import Cache
from clipact.calibration import (
    UNCALIBRATED,
    Calibration,
    CalibrationTarget,
    IndependentProbabilities,
    append_background,
    background_words,
    exclude_labels,
    near_labels,
)
from clipact.classify.base import VideoClassifier
from clipact.classify.prediction import Prediction, Trust, agreement_of, best_first
from clipact.classify.text_classifier import TextClassifier, embed_labels, wording_key
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.engines.engine import Engine
from clipact.engines.vectors import unit
from clipact.errors import CalibrationError, UsageError
from clipact.progress import ProgressBar, no_progress
from clipact.prompts import LabelSet, PromptSet


@dataclass(frozen=True, kw_only=True, eq=False)
class Background:
    """Background words, and which of them mean what which labels mean."""

    words: tuple[str, ...]
    near: Bool[np.ndarray, "b l"]

    @property
    def far(self) -> tuple[str, ...]:
        """The words that mean what no label means."""
        return tuple(word for word, row in zip(self.words, self.near, strict=True) if not row.any())


def choose_background(
    model: Engine, labels: LabelSet, prompts: PromptSet, *, cache: Cache, progress: ProgressBar = no_progress
) -> Background:
    """The shipped words that are no label, by the vectors of their sentences.

    ModelError for a model whose texts depend on the video, UsageError for one without words, CalibrationError when the
    labels are so many that no word is left to weigh them against.
    """
    if model.labels:
        raise UsageError(f"{model.name} knows its own labels alone: it has no words to weigh them against")
    if model.text_depends_on_video:
        raise model.text_needs_video()
    words, count = exclude_labels(background_words(), labels), len(labels)
    both = embed_with_background(model, labels, words, prompts, cache=cache, progress=progress)
    vectors = unit(both.rows.mean(0))
    label_ids = both.label_ids
    meant = np.zeros((len(words), count), dtype=bool)
    if len(words) > 1:
        rows, columns = np.nonzero(near_labels(vectors[label_ids >= count], vectors[label_ids < count]))
        meant[label_ids[label_ids >= count][rows] - count, label_ids[label_ids < count][columns]] = True
    found = Background(words=words, near=meant)
    if len(words) < 2 or not found.far:
        raise CalibrationError(
            f"the {count:,} labels leave none of the background words to weigh them against: fewer labels do"
        )
    return found


def embed_with_background(
    model: Engine,
    labels: LabelSet,
    background: Sequence[str],
    prompts: PromptSet,
    *,
    cache: Cache,
    progress: ProgressBar = no_progress,
) -> TextClassifier:
    """What clips are compared with: the labels' vectors, and after them the background words'."""
    own = embed_labels(model, labels, prompts, cache=cache, progress=progress)
    if not background:
        return own
    shipped = background_words()
    known = shipped if set(background) <= set(shipped) else tuple(background)
    others = LabelSet.of(known, phrases=known, name="background")
    vectors = embed_labels(model, others, prompts, cache=cache, progress=progress)
    return own.append(vectors.only([known.index(word) for word in background]))


class CalibratedClassifier(VideoClassifier):
    """A classifier that knows how sure it is, and when none of its labels fits; satisfies `Recognizer`.

        classifier = CalibratedClassifier.load("mini", calibration="mine.json")
        prediction = classifier.classify("video.mp4")
        print(prediction.none_of_these, prediction.trust.label_set)

    calibration  what `clipact calibrate` wrote, or its file; it brings labels, prompts, frames and clips
    multi_label  judge each label alone, against the background words: `prediction.accepted` are those that fit. Without
                 a calibration each must be likelier than all background words together
    labels, prompts, frames, clips  as for `ZeroShotClassifier`; beside a calibration CalibrationError when they are not
                 the calibration's own
    """

    def __init__(
        self,
        model: Engine,
        *,
        calibration: Calibration | str | Path | None = None,
        labels: LabelSet | Sequence[str] | str | None = None,
        prompts: PromptSet | str | None = None,
        frames: int | None = None,
        clips: int | None = None,
        multi_label: bool = False,
        decoder: str = "pyav",
        cache: Cache | None = None,
        progress: ProgressBar = no_progress,
    ) -> None:
        if isinstance(calibration, str | Path):
            calibration = Calibration.load(calibration)
        asked = None if labels is None else LabelSet.of_any(labels)
        said = PromptSet.load(prompts) if isinstance(prompts, str) else prompts
        spec, cache = model.spec, cache or Cache()
        if calibration is not None:
            own = calibration.target
            check_target(own, model, labels=asked, prompts=said, frames=frames, clips=clips)
            asked, said, background = own.labels, own.prompts, own.background
            spec, clips = own.views.apply(spec), own.views.views
        elif not multi_label:
            raise UsageError("there is nothing to judge by: give a calibration, or multi_label=True")
        elif asked is None:
            raise UsageError("there are no labels; give some, or a calibration, which brings its own")
        else:
            said = said or PromptSet.load("action")
            background = choose_background(model, asked, said, cache=cache, progress=progress).far
        words = embed_with_background(model, asked, background, said, cache=cache, progress=progress)
        self.calibration, self.multi_label, self.label_set = calibration, multi_label, asked
        self.base = ZeroShotClassifier(
            model,
            append_background(asked, background),
            prompts=said,
            frames=frames,
            clips=1 if clips is None else clips,
            spec=spec,
            decoder=decoder,
            words=words,
        )
        super().__init__(self.base.spec, clips=self.base.clips, decoder=decoder)

    @classmethod
    def load(
        cls, model: str = "mini", *, device: str = "auto", precision: str = "auto", **options: Any
    ) -> "CalibratedClassifier":
        """A classifier from a model's name; `options` as for the constructor."""
        from clipact.models import zoo

        return cls(zoo.load_model(model, device=device, precision=precision, defer_text=True), **options)

    @property
    def engine(self) -> Engine:
        """The model."""
        return self.base.model

    @property
    def labels(self) -> tuple[str, ...]:
        """What it chooses from; the background words are none of them."""
        return self.label_set.labels

    def answer(self, embeddings: Float32[np.ndarray, "k d"]) -> Prediction:
        """Return the prediction for one video, and what can be trusted of it."""
        logits, each = self.base.compare(embeddings)
        whole, count, labels = logits.astype(np.float64), len(self.label_set), self.labels
        own, background = whole[:count], whole[count:]
        verdict = None if self.calibration is None else self.calibration.params.of(own, background)
        if verdict is None:
            scores = IndependentProbabilities().probabilities(own[None], background[None])[0]
            accepted = tuple(np.flatnonzero(scores >= UNCALIBRATED).tolist())
        else:
            scores = verdict.independent if self.multi_label else verdict.probabilities
            accepted = verdict.accepted
        scores = scores.astype(np.float32)
        fitting = tuple(labels[accepted[i]] for i in best_first(scores[list(accepted)]).tolist())
        trust = None
        if self.calibration is not None and verdict is not None and not self.multi_label:
            params = self.calibration.params
            trust = Trust(
                none_of_these=verdict.none_of_these,
                in_set_score=verdict.in_set_score,
                threshold=params.threshold,
                score=params.score,
                false_rejection_rate=params.false_rejection_rate,
                label_set=tuple(labels[i] for i in verdict.label_set),
                coverage=params.coverage,
            )
        return Prediction(
            labels=labels,
            scores=scores,
            model=self.base.model.name,
            prompts=self.base.prompts.name,
            agreement=agreement_of(each[:, :count], labels, answer=labels[int(scores.argmax())]),
            trust=trust,
            accepted=fitting if self.multi_label else None,
        )


def check_target(
    own: CalibrationTarget,
    model: Engine,
    *,
    labels: LabelSet | None = None,
    prompts: PromptSet | None = None,
    frames: int | None = None,
    clips: int | None = None,
) -> None:
    """CalibrationError when a calibration of these answers says nothing of those that are asked for."""
    if model.key != own.model_key:
        how = "by that name, but of other weights" if model.name == own.model else f"not {model.name!r}"
        raise CalibrationError(
            f"this calibration is of the model {own.model!r}, {how}; name that one with --model, or calibrate this one"
        )
    if labels is not None and labels.labels != own.labels.labels:
        strange = [label for label in labels.labels if label not in own.labels.labels]
        how = f"{strange[0]!r} is none of them" if strange else "or not in this order"
        raise CalibrationError(
            f"this calibration is of {len(own.labels)} labels, not of these {len(labels)} ({how}): leave out --labels, "
            "which it brings, or calibrate anew"
        )
    if wording_key(append_background(labels or own.labels, own.background), prompts or own.prompts) != own.sentences:
        raise CalibrationError(
            f"this calibration is of other sentences, of the prompts {own.prompts.name!r}: leave out --labels and "
            "--prompts, which it brings, or calibrate anew"
        )
    spec = own.views.apply(model.spec)
    for name, asked, seen in (("frames", frames, spec.frames), ("clips", clips, own.views.views)):
        if asked is not None and asked != seen:
            raise CalibrationError(
                f"this calibration is of {seen} {name}, not {asked}: leave out --{name}, or calibrate anew"
            )
