"""Zero-shot classification among the labels of an index: the nearest, and what all the others hold together."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from clipact import zoo
from clipact.errors import UsageError, VideoError
from clipact.label_index import LabelIndex
from clipact.prediction import Outside, Prediction, Scored
from clipact.store import Store
from clipact.video.ahead import Decoded, decode_ahead, decode_one
from clipact.video.decode import check_decoder
from clipact.views import embed_views, fit_frames, frames_of, mean_view, with_ledger


class IndexClassifier:
    """Names the action in a clip among the labels of a `LabelIndex`; satisfies `Recognizer`.

        model = clipact.load_model("mini")
        classifier = IndexClassifier(model, LabelIndex.open("verbs.index", model_key=model.key))

    model    what `clipact.zoo.load` gives: the one that made the index, or UsageError
    index    the labels; a Prediction ranks the nearest of them and says what the others hold
    retrieved  how many are ranked; by default the square root of their number, 100 at least
    frames, clips, decoder  as for `ZeroShotClassifier`
    """

    def __init__(
        self,
        model: zoo.Model,
        index: LabelIndex,
        *,
        retrieved: int | None = None,
        frames: int | None = None,
        clips: int = 1,
        decoder: str = "pyav",
    ) -> None:
        if model.encoder.text_depends_on_video:
            raise model.encoder.text_needs_video()
        if model.key != index.table.about.model_key:
            raise UsageError(
                f"the index is of model {index.table.about.model}, not of {model.name}: build one with {model.name}"
            )
        if clips < 1:
            raise UsageError(f"clips is {clips}; a video has at least 1")
        check_decoder(decoder)
        self.model, self.index, self.retrieved = model, index, retrieved
        self.spec = model.encoder.spec.with_frames(frames)
        self.clips, self.decoder = clips, decoder

    @classmethod
    def load(
        cls, model: str, folder: str | Path, *, device: str = "auto", precision: str = "fp32", **options: Any
    ) -> "IndexClassifier":
        """A classifier from a model's name and an index's folder; `options` as for the constructor."""
        loaded = zoo.load(model, device=device, precision=precision, defer_text=True)
        return cls(loaded, LabelIndex.open(folder, model_key=loaded.key, store=Store()), **options)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Every text of the index: all of them are read."""
        rows = self.index.rows
        return tuple(rows.entry(row).text for row in range(len(rows)) if not rows.is_removed(row))

    def classify(
        self, path: str | Path, *, start_seconds: float | None = None, end_seconds: float | None = None
    ) -> Prediction:
        """The prediction for one file, or for a part of it; VideoError when it cannot be read."""
        span = {"start_seconds": start_seconds, "end_seconds": end_seconds}
        return self.classify_decoded(decode_one(path, self.spec, clips=self.clips, decoder=self.decoder, **span))

    def classify_frames(self, frames: UInt8[np.ndarray, "t h w c"]) -> Prediction:
        """The prediction for frames that are decoded already, RGB, of any size: all of them are used."""
        return self._predict(embed_views(self.model.encoder, [fit_frames(frames, self.spec)], self.spec))

    def classify_many(self, paths: Iterable[str | Path], **span: Any) -> Iterator[Prediction | VideoError]:
        """A prediction a path, in order, decoding ahead; where a file cannot be read its VideoError stands instead."""
        for decoded in decode_ahead(paths, self.spec, clips=self.clips, decoder=self.decoder, **span):
            yield decoded.error or self.classify_decoded(decoded)

    def classify_decoded(self, decoded: Decoded) -> Prediction:
        """The prediction for clips that were decoded as `self.spec` says; raises the error that stands in them."""
        views = embed_views(self.model.encoder, frames_of(decoded), self.spec)
        return with_ledger(self._predict(views), decoded)

    def _predict(self, views: Float[Tensor, "k d"]) -> Prediction:
        query = mean_view(views).float().cpu().numpy()
        with torch.inference_mode():
            scale = float(self.model.encoder.scale)
        shares = self.index.shares(query, scale=scale, k=self.retrieved)
        rows = shares.nearest.rows[0]
        entries = self.index.entries(rows)
        ranked = zip(entries, shares.probabilities[0].tolist(), strict=False)
        return Prediction(
            ranked=tuple(Scored(entry.text, share) for entry, share in ranked),
            model=self.model.name,
            prompts=self.index.table.about.prompts,
            outside=Outside(
                share=float(shares.outside[0]), error=float(shares.error[0]), labels=len(self.index) - len(entries)
            ),
        )
