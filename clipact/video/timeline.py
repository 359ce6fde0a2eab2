"""When each frame of a video is shown, and where decoding may begin: facts and arithmetic, no file is opened here."""

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from clipact.errors import UsageError, VideoError
from clipact.prediction import FrameStamp


@dataclass(frozen=True)
class KeyFrame:
    """A frame at which a decoder may start.

    tick       when it is shown
    seek_tick  where to seek for it: its decoding time, which MP4 and MPEG-TS look for
    position   how many packets come before it
    """

    tick: int
    seek_tick: int
    position: int


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The frames of a video in the order in which they are shown.

    ticks       when each is shown, in units of `time_base` seconds, strictly rising
    time_base   seconds a tick
    last_ticks  how long the last frame is shown
    keys        where a decoder may start, by rising tick; none when only the beginning is safe
    notes       what is odd about the file
    """

    ticks: np.ndarray
    time_base: Fraction
    last_ticks: int = 0
    keys: tuple[KeyFrame, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.ticks) > 0
        assert bool((np.diff(self.ticks) > 0).all())

    def __len__(self) -> int:
        return len(self.ticks)

    @property
    def seconds(self) -> np.ndarray:
        """When each frame is shown; the first is at 0, whatever offset the container starts with."""
        return np.round((self.ticks - self.ticks[0]) * float(self.time_base), 6)

    @property
    def duration_seconds(self) -> float:
        """From the first frame to the end of the last."""
        return round(float((int(self.ticks[-1]) + self.last_ticks - int(self.ticks[0])) * self.time_base), 6)

    def stamps(self, indices: list[int]) -> tuple[FrameStamp, ...]:
        """The ledger's lines for these frames."""
        return tuple(FrameStamp(i, float(s)) for i, s in zip(indices, self.seconds[indices], strict=True))

    def within(self, start_seconds: float | None, end_seconds: float | None, *, name: str) -> range:
        """The frames shown from `start_seconds` on and before `end_seconds`.

        Never empty: a stretch between two frames gives the one that is on show. A start past the end is a VideoError
        for the video `name`; an end that is not after the start is a UsageError.
        """
        start = start_seconds or 0.0
        if not 0 <= start < float("inf"):
            raise UsageError(f"the start asked for is {start} s; it is counted from the first frame, 0")
        if end_seconds is not None and not end_seconds > start:
            raise UsageError(f"the end asked for, {end_seconds:g} s, is not after the start, {start:g} s")
        if start >= self.duration_seconds and start > 0:
            raise VideoError(
                name, f"it lasts {self.duration_seconds:.3f} seconds; the start asked for, {start:g}, is past its end"
            )
        # Half a tick of grace: 0.1 must find the frame at 0.1 although neither is exact in binary.
        seconds = self.seconds + float(self.time_base) / 2
        low = int(np.searchsorted(seconds, start))
        high = len(self) if end_seconds is None else int(np.searchsorted(seconds, end_seconds))
        return range(low, high) if low < high else range(max(low - 1, 0), max(low, 1))
