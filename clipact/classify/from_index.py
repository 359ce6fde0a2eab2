"""Zero-shot classification among the labels of an index: the nearest, and what all the others hold together."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from clipact.cache import Cache
from clipact.classify.base import VideoClassifier
from clipact.classify.embedding_recognizer import RecognizerFacts
from clipact.classify.prediction import Agreement, Outside, Prediction, agreement_of
from clipact.engines.engine import Engine
from clipact.engines.vectors import mean_clip
from clipact.errors import UsageError
from clipact.label_index import LabelIndex


class IndexClassifier(VideoClassifier):
    """Names the action in a clip among the labels of a `LabelIndex`; satisfies `Recognizer`.

        model = clipact.load_model("mini")
        classifier = IndexClassifier(model, LabelIndex.open("verbs.index", model_key=model.key))

    model                   what `clipact.models.zoo.load_model` gives: the one that made the index, or UsageError
    index                   the labels; a Prediction ranks the nearest of them and says what the others hold
    retrieved               how many are ranked; by default the square root of their number, 100 at least
    frames, clips, decoder  as for `ZeroShotClassifier`
    """

    def __init__(
        self,
        model: Engine,
        index: LabelIndex,
        *,
        retrieved: int | None = None,
        frames: int | None = None,
        clips: int = 1,
        decoder: str = "pyav",
    ) -> None:
        if model.text_depends_on_video:
            raise model.text_needs_video()
        if model.key != index.manifest.metadata.model_key:
            raise UsageError(
                f"the index is of model {index.manifest.metadata.model}, not of {model.name}: build one with "
                f"{model.name}"
            )
        super().__init__(model.spec.with_frames(frames), clips=clips, decoder=decoder)
        self.model, self.index, self.retrieved = model, index, retrieved

    @classmethod
    def load(
        cls, model: str, folder: str | Path, *, device: str = "auto", precision: str = "auto", **options: Any
    ) -> "IndexClassifier":
        """A classifier from a model's name and an index's folder; `options` as for the constructor."""
        from clipact.models import zoo

        loaded = zoo.load_model(model, device=device, precision=precision, defer_text=True)
        return cls(loaded, LabelIndex.open(folder, model_key=loaded.key, cache=Cache()), **options)

    @property
    def engine(self) -> Engine:
        """The model."""
        return self.model

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Every text of the index: all of them are read."""
        rows = self.index.rows
        return tuple(rows.entry(row).text for row in range(len(rows)) if not rows.is_removed(row))

    def facts(self) -> RecognizerFacts:
        """Return what an evaluation's record says of the model."""
        return RecognizerFacts(model=self.model)

    def answer(self, embeddings: Float32[np.ndarray, "k d"]) -> Prediction:
        """Return the prediction for one video: the nearest labels, and what all others hold together."""
        query = embeddings if len(embeddings) == 1 else mean_clip(embeddings)[None]
        scale = self.model.scale
        shares = self.index.shares(query, scale=scale, k=self.retrieved)
        found = shares.nearest.rows[0] >= 0
        rows = shares.nearest.rows[0][found]
        texts = tuple(entry.text for entry in self.index.entries(rows))
        return Prediction(
            labels=texts,
            scores=shares.probabilities[0][found].astype(np.float32),
            model=self.model.name,
            prompts=self.index.manifest.metadata.prompts,
            agreement=self._agreement(embeddings, rows, texts, scale=scale),
            outside=Outside(
                share=float(shares.outside[0]), error=float(shares.error[0]), labels=len(self.index) - len(texts)
            ),
        )

    def _agreement(
        self, clips: Float32[np.ndarray, "k d"], rows: Int64[np.ndarray, " n"], texts: Sequence[str], *, scale: float
    ) -> Agreement | None:
        """How far the clips agree among the retrieved labels; None for a single one, for which nothing is read."""
        if len(clips) < 2:
            return None
        return agreement_of(np.float32(scale) * clips @ self.index.rows.vectors(rows).T, texts, answer=texts[0])
