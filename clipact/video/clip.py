"""What the video room hands out: frames, and the ledger that says which frames they are."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from clipact.prediction import FrameStamp


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Frames sampled from one video, upright, RGB.

    frames            one array of all frames; read it, do not write to it
    stamps            a line for each frame: its number in presentation order, and when it is shown
    source            the file, or what else the frames came from
    decoder           what decoded it, as `--decoder` names it
    duration_seconds  of the whole video, from its first frame to the end of its last; None when unknown
    notes             what a reader should know: frames repeated, a file cut short
    """

    frames: UInt8[np.ndarray, "t h w c"]
    stamps: tuple[FrameStamp, ...]
    source: str
    decoder: str
    duration_seconds: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.frames.dtype == np.uint8, self.frames.dtype
        assert self.frames.ndim == 4, self.frames.shape
        assert self.frames.shape[3] == 3, self.frames.shape
        assert len(self.frames) == len(self.stamps) > 0, (len(self.frames), len(self.stamps))

    def __len__(self) -> int:
        return len(self.stamps)
