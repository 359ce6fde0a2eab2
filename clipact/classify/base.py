"""Base of all classifiers: the `Recognizer` protocol, and what turns files into views of a video.

A `VideoClassifier` takes a file or a part of it, many files, or frames that are decoded already; a subclass is given
the embeddings of a video's clips. Importing this file does not import torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from clipact.classify.prediction import Prediction
from clipact.clip_spec import ClipSpec
from clipact.engines.engine import Engine
from clipact.errors import UsageError, VideoError
from clipact.video.collect import check_decoder
from clipact.video.load import Decoded, decode_ahead, decode_one
from clipact.video.transforms import fit_frame


@runtime_checkable
class Recognizer(Protocol):
    """Anything that names the action in a clip: zero-shot or trained on its labels."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What it chooses from, in a fixed order."""

    def classify(self, path: str | Path) -> Prediction:
        """The prediction for one file; VideoError when it cannot be read."""

    def classify_frames(self, frames: UInt8[np.ndarray, "t h w c"]) -> Prediction:
        """The prediction for frames already decoded, RGB."""

    def classify_many(self, paths: Iterable[str | Path]) -> Iterator[Prediction | VideoError]:
        """A prediction a path, in order; the VideoError in its place when one cannot be read."""


class VideoClassifier(ABC):
    """Looks at `clips` clips of a video, prepared as `spec` says, and answers; satisfies `Recognizer`."""

    def __init__(self, spec: ClipSpec, *, clips: int, decoder: str) -> None:
        if clips < 1:
            raise UsageError(f"clips is {clips}; a video has at least 1")
        check_decoder(decoder)
        self.spec, self.clips, self.decoder = spec, clips, decoder

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """What it chooses from, as they were given."""

    @property
    @abstractmethod
    def engine(self) -> Engine:
        """The model that encodes clips."""

    @abstractmethod
    def answer(self, embeddings: Float32[np.ndarray, "k d"]) -> Prediction:
        """Return the prediction for one video.

        Args:
            embeddings: Unit vectors of its clips; their contexts, where text depends on the video.
        """

    def answer_views(self, views: Sequence[UInt8[np.ndarray, "t h w c"]]) -> Prediction:
        """The prediction for the views of one video, whose frames fit `spec`."""
        encoder = self.engine.clip_encoder(self.spec)
        return self.answer(encoder.head(encoder.encode(np.stack(views))))

    def classify(
        self, path: str | Path, *, start_seconds: float | None = None, end_seconds: float | None = None
    ) -> Prediction:
        """The prediction for one file, or for a part of it; VideoError when it cannot be read."""
        span = {"start_seconds": start_seconds, "end_seconds": end_seconds}
        return self.classify_decoded(decode_one(path, self.spec, clips=self.clips, decoder=self.decoder, **span))

    def classify_frames(self, frames: UInt8[np.ndarray, "t h w c"]) -> Prediction:
        """The prediction for frames that are decoded already, RGB, of any size: all of them are used."""
        return self.answer_views([fit_frames(frames, self.spec)])

    def classify_many(self, paths: Iterable[str | Path], **span: Any) -> Iterator[Prediction | VideoError]:
        """A prediction a path, in order, decoding ahead; where a file cannot be read its VideoError stands instead.

        `span` may hold start_seconds and end_seconds, for all of them.
        """
        for decoded in decode_ahead(paths, self.spec, clips=self.clips, decoder=self.decoder, **span):
            yield decoded.error or self.classify_decoded(decoded)

    def classify_decoded(self, decoded: Decoded) -> Prediction:
        """The prediction for clips that were decoded as `spec` says; raises the error that stands in them."""
        return with_ledger(self.answer_views(frames_of(decoded)), decoded)


def fit_frames(frames: UInt8[np.ndarray, "t h0 w0 c"], spec: ClipSpec) -> UInt8[np.ndarray, "t h w c"]:
    """Frames of any size as the spec wants them; UsageError when they are no frames."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0 or frames.dtype != np.uint8:
        raise UsageError(
            f"frames are {frames.dtype} of shape {frames.shape}; wanted uint8 of shape (t, h, w, 3), t >= 1"
        )
    return np.stack([fit_frame(frame, spec) for frame in frames])


def frames_of(decoded: Decoded) -> list[UInt8[np.ndarray, "t h w c"]]:
    """The frames of each view; raises the error that stands in their place."""
    if decoded.error is not None:
        raise decoded.error
    return [clip.frames for clip in decoded.clips]


def with_ledger(prediction: Prediction, decoded: Decoded) -> Prediction:
    """The prediction with the file, and the frames of it that were looked at."""
    first = decoded.clips[0]
    return replace(
        prediction,
        video=decoded.source,
        duration_seconds=first.duration_seconds,
        decoder=first.decoder,
        frames=tuple(stamp for clip in decoded.clips for stamp in clip.stamps),
        notes=tuple(dict.fromkeys((*(note for clip in decoded.clips for note in clip.notes), *prediction.notes))),
    )
