"""Base of all classifiers: the `Recognizer` protocol, and how a classifier's videos go through the embedding engine.

A `VideoClassifier` takes a file or a part of it, many files, or frames that are decoded already; a subclass is given
the embeddings of a video's clips. Importing this file does not import torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from clipact.cache import Cache
from clipact.classify.prediction import Prediction
from clipact.clip_spec import ClipSpec
from clipact.embed.clip_source import ClipSource
from clipact.embed.embed_clips import DecodedAhead, EmbedRequest, embed_clips
from clipact.embed.feature_collector import encode_clip
from clipact.embed.options import EmbedOptions
from clipact.embed.video_embedding import VideoEmbedding
from clipact.engines.engine import Engine
from clipact.errors import UsageError, VideoError
from clipact.video.open_source import VideoSource, source_name
from clipact.video.transforms import fit_frame
from clipact.video.ways import check_decoder


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

    def classify(
        self, path: VideoSource, *, start_seconds: float | None = None, end_seconds: float | None = None
    ) -> Prediction:
        """The prediction for one file, or for a part of it; VideoError when it cannot be read."""
        (answer,) = self.classify_many([path], start_seconds=start_seconds, end_seconds=end_seconds)
        if isinstance(answer, VideoError):
            raise answer
        return answer

    def classify_frames(self, frames: UInt8[np.ndarray, "t h w c"]) -> Prediction:
        """The prediction for frames that are decoded already, RGB, of any size: all of them are used."""
        encoder = self.engine.clip_encoder(self.spec)
        return self.answer(encoder.head(encode_clip(encoder, fit_frames(frames, self.spec))[None]))

    def classify_many(
        self,
        paths: Iterable[VideoSource],
        *,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        options: EmbedOptions | None = None,
    ) -> Iterator[Prediction | VideoError]:
        """A prediction a path, in order, decoding ahead; where a file cannot be read its VideoError stands instead.

        Args:
            paths: Files, or whatever else is a video.
            start_seconds: Where each begins, counted from its first frame.
            end_seconds: Where each ends.
            options: How they are embedded; by default features are kept in the default cache.
        """
        rows = (
            ClipSource(source=path, name=source_name(path), start_seconds=start_seconds, end_seconds=end_seconds)
            for path in paths
        )
        for _, answer in self.classify_rows(rows, options or EmbedOptions(cache=Cache())):
            yield answer

    def classify_rows(
        self, rows: Iterable[ClipSource], options: EmbedOptions, *, decoded: DecodedAhead | None = None
    ) -> Iterator[tuple[VideoEmbedding, Prediction | VideoError]]:
        """Yield for each row what the engine found, and the prediction or the error that stands in its place.

        Args:
            rows: Videos, or parts of them.
            options: How they are embedded.
            decoded: Clips of the first rows, by their numbers, that are being decoded already.
        """
        encoder = self.engine.clip_encoder(self.spec, clips=self.clips, decoder=self.decoder)
        request = EmbedRequest(encoder=encoder, decoded=decoded or {})
        for found in embed_clips(rows, request, options, description="classifying"):
            if found.error is not None:
                yield found, found.error
                continue
            assert found.embeddings is not None
            yield found, with_ledger(self.answer(found.embeddings), found)


def fit_frames(frames: UInt8[np.ndarray, "t h0 w0 c"], spec: ClipSpec) -> UInt8[np.ndarray, "t h w c"]:
    """Frames of any size as the spec wants them; UsageError when they are no frames."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0 or frames.dtype != np.uint8:
        raise UsageError(
            f"frames are {frames.dtype} of shape {frames.shape}; wanted uint8 of shape (t, h, w, 3), t >= 1"
        )
    return np.stack([fit_frame(frame, spec) for frame in frames])


def with_ledger(prediction: Prediction, found: VideoEmbedding) -> Prediction:
    """The prediction with the file, and the frames of it that were looked at."""
    return replace(
        prediction,
        video=found.name,
        duration_seconds=found.duration_seconds,
        decoder=found.decoder,
        frames=tuple(stamp for clip in found.stamps for stamp in clip),
        notes=tuple(dict.fromkeys((*found.notes, *prediction.notes))),
    )
