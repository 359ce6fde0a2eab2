"""What every source of frames can do, whatever decodes it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from clipact.video.timeline import Timeline


class Video(ABC):
    """Frames in presentation order, to be had by number; to be closed.

    name     what messages and the ledger call the source
    decoder  what decodes it, as the ledger says it
    """

    name: str
    decoder: str

    @abstractmethod
    def timeline(self) -> Timeline:
        """When each frame is shown. May raise FramesDifferError: then they must be counted (`decode_counted.py`)."""

    @abstractmethod
    def decode(self, timeline: Timeline, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """Each frame named in `indices` once, with its number, upright, RGB; in any order.

        FramesDifferError when one that the timeline promised does not come.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the source back."""

    def damaged(self) -> Sequence[int]:
        """The frames decoded so far that the decoder calls damaged."""
        return ()
