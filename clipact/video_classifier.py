"""The doors of every classifier of videos: a file or a part of it, many files, or frames that are decoded already.

Whoever answers is given the frames of a video's views, and knows nothing of files.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from clipact.clip_spec import ClipSpec
from clipact.errors import UsageError, VideoError
from clipact.prediction import Prediction
from clipact.video.ahead import Decoded, decode_ahead, decode_one
from clipact.video.decode import check_decoder
from clipact.views import fit_frames, frames_of, with_ledger


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

    @abstractmethod
    def answer(self, views: Sequence[UInt8[np.ndarray, "t h w c"]]) -> Prediction:
        """The prediction for the views of one video, whose frames fit `spec`."""

    def classify(
        self, path: str | Path, *, start_seconds: float | None = None, end_seconds: float | None = None
    ) -> Prediction:
        """The prediction for one file, or for a part of it; VideoError when it cannot be read."""
        span = {"start_seconds": start_seconds, "end_seconds": end_seconds}
        return self.classify_decoded(decode_one(path, self.spec, clips=self.clips, decoder=self.decoder, **span))

    def classify_frames(self, frames: UInt8[np.ndarray, "t h w c"]) -> Prediction:
        """The prediction for frames that are decoded already, RGB, of any size: all of them are used."""
        return self.answer([fit_frames(frames, self.spec)])

    def classify_many(self, paths: Iterable[str | Path], **span: Any) -> Iterator[Prediction | VideoError]:
        """A prediction a path, in order, decoding ahead; where a file cannot be read its VideoError stands instead.

        `span` may hold start_seconds and end_seconds, for all of them.
        """
        for decoded in decode_ahead(paths, self.spec, clips=self.clips, decoder=self.decoder, **span):
            yield decoded.error or self.classify_decoded(decoded)

    def classify_decoded(self, decoded: Decoded) -> Prediction:
        """The prediction for clips that were decoded as `spec` says; raises the error that stands in them."""
        return with_ledger(self.answer(frames_of(decoded)), decoded)
