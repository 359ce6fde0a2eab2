"""Encode clips: what the embedding engine needs to know of a visual tower, and nothing of the library that runs it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, UInt8

from clipact.clip_spec import ClipSpec


@dataclass(frozen=True, kw_only=True)
class ClipEncoder:
    """Encode the clips of videos: `encode` gives features, which are cached, and `head` their embeddings.

    spec, clips, crops, decoder  what is decoded of a video, and by what
    by_frame        whether a clip's features are those of its frames, each encoded by itself
    frames_at_once  frames in a batch
    key             gives the hash of the weights that decide the features, of the device and the precision
    identity        of all that decides the embeddings
    on_cpu          where it is encoded: there workers encode, too
    encode          clips to features; pictures are clips of one frame
    head            features of clips to unit embeddings (to contexts, where text depends on the video)
    threads         gives a context inside which one call of `encode` is computed by so many threads
    """

    spec: ClipSpec
    clips: int
    crops: int
    decoder: str
    by_frame: bool
    frames_at_once: int
    key: Callable[[], str]
    identity: str
    on_cpu: bool
    encode: Callable[[UInt8[np.ndarray, "n t h w c"]], Float32[np.ndarray, "n ..."]]
    head: Callable[[Float32[np.ndarray, "k ..."]], Float32[np.ndarray, "k d"]]
    threads: Callable[[int], AbstractContextManager[None]]

    @property
    def clips_a_video(self) -> int:
        """Clips of one video, all crops counted."""
        return self.clips * self.crops

    def with_frames_at_once(self, frames: int | None) -> "ClipEncoder":
        """Return the same with another size of batch; itself when None."""
        return self if frames is None else replace(self, frames_at_once=frames)
