"""Supervised classification: a clip is named by one of the labels that a model was trained on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float32

from clipact.classify.base import VideoClassifier
from clipact.classify.embedding_recognizer import RecognizerFacts
from clipact.classify.prediction import Prediction
from clipact.classify.text_classifier import TextClassifier
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.clip_spec import Averaging, ClipSpec
from clipact.engines.engine import Engine
from clipact.errors import UsageError
from clipact.prompts import LabelSet


class SupervisedClassifier(VideoClassifier):
    """Names the action in a clip by a label that it was trained on; satisfies `Recognizer`.

        classifier = SupervisedClassifier.load("runs/i3d/best")
        print(classifier.classify("video.mp4"), classifier.labels)

    model    what `clipact.models.zoo.load_model` gives, with labels of its own; UsageError for a model that knows words
    labels   some of these, to choose among them alone; all of them when None. LabelError for any other
    frames, clips, spec, decoder  as for `ZeroShotClassifier`

    A `TextClassifier` compares clips with the vectors of labels, as it does with those of sentences.
    """

    def __init__(
        self,
        model: Engine,
        labels: LabelSet | Sequence[str] | None = None,
        *,
        frames: int | None = None,
        clips: int = 1,
        spec: ClipSpec | None = None,
        decoder: str = "pyav",
    ) -> None:
        self.model = model
        if not model.labels:
            raise UsageError(
                f"{model.name} was not trained on labels of its own: it answers any words, with ZeroShotClassifier"
            )
        chosen = labels if isinstance(labels, LabelSet) else LabelSet.of(tuple(labels or model.labels))
        label_set = replace(chosen, phrases=chosen.labels)
        rows, label_ids = model.encode_text(label_set.labels), np.arange(len(label_set))
        self.base = ZeroShotClassifier(
            model,
            label_set,
            prompts="bare",
            frames=frames,
            clips=clips,
            spec=spec,
            decoder=decoder,
            words=TextClassifier(rows=rows[None], label_ids=label_ids, labels=len(label_set)),
        )
        super().__init__(self.base.spec, clips=clips, decoder=decoder)

    averagings: tuple[Averaging, ...] = ZeroShotClassifier.averagings

    def adapt(self, embeddings: Float32[np.ndarray, "n k d"]) -> "SupervisedClassifier":
        """Return the classifier itself: nothing is estimated from unlabelled clips."""
        return self

    def score(self, embeddings: Float32[np.ndarray, "n k d"], *, averaging: Averaging) -> Float32[np.ndarray, "n l"]:
        """Return the logits of n videos for each label, averaged over their k views."""
        return self.base.score(embeddings, averaging=averaging)

    def facts(self) -> RecognizerFacts:
        """Return what an evaluation's record says of the model and its labels."""
        return self.base.facts()

    @classmethod
    def load(
        cls, model: str, *, device: str = "auto", precision: str = "auto", **options: Any
    ) -> "SupervisedClassifier":
        """A classifier from a folder (see `clipact.models.zoo.load_model`); `options` as for the constructor."""
        from clipact.models import zoo

        return cls(zoo.load_model(model, device=device, precision=precision), **options)

    @property
    def engine(self) -> Engine:
        """The model."""
        return self.model

    @property
    def labels(self) -> tuple[str, ...]:
        """What it chooses from."""
        return self.base.labels

    def answer(self, embeddings: Float32[np.ndarray, "k d"]) -> Prediction:
        """Return the prediction for one video; it names no prompts, of which there are none."""
        return replace(self.base.answer(embeddings), prompts="")
