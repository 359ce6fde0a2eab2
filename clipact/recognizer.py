"""The one protocol that every classifier here satisfies, zero-shot or trained, so that one runner judges them all."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from clipact.errors import VideoError
from clipact.prediction import Prediction


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
