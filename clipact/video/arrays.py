"""Frames that are in memory already: a NumPy array as a video."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import UInt8

from clipact.errors import UsageError
from clipact.video.timeline import Timeline
from clipact.video.video import Video

ASSUMED_FPS = 25  # of arrays and numbered pictures, which have no clock; said in the notes
NO_CLOCK = f"it has no clock: {ASSUMED_FPS} frames a second are assumed"


class ArrayVideo(Video):
    """An array of frames, uint8 (t, h, w, 3), RGB; one picture (h, w, 3) is a video of one frame."""

    name = "array"
    decoder = "none"

    def __init__(self, array: np.ndarray) -> None:
        frames = array[None] if array.ndim == 3 else array
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise UsageError(
                f"the array is {array.dtype} of shape {array.shape}; wanted uint8 of shape (t, h, w, 3), RGB, t >= 1"
            )
        self._frames = frames

    def close(self) -> None:
        """Nothing: the array is the caller's."""

    def timeline(self) -> Timeline:
        """Its frames, at 25 a second."""
        count = len(self._frames)
        notes = (NO_CLOCK,) if count > 1 else ()
        return Timeline(ticks=np.arange(count), time_base=Fraction(1, ASSUMED_FPS), last_ticks=1, notes=notes)

    def decode(self, timeline: Timeline, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """The frames, not copied."""
        return ((index, self._frames[index]) for index in sorted(set(indices)))
