"""What the engine gives for a row: the embeddings of its clips and how they came about, or why there are none."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from clipact.clip_spec import FrameStamp
from clipact.errors import VideoError
from clipact.video.open_source import source_name


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoEmbedding:
    """The embeddings of one row.

    name              of its source
    embeddings        unit vectors, one a clip; None where it could not be read, or features alone were asked for
    features          what the visual backbone makes of each clip, where that was asked for
    digest            sha256 of the file; "" where it could not be read, or is no file
    cause             why it could not be read; ""
    notes             what a reader should know: frames repeated, a file cut short
    decoder           what decoded it
    duration_seconds  of the whole video; None when unknown
    stamps            the ledger of the frames of each clip
    span              where its part of the video begins and ends, in seconds; None where it is the whole
    """

    name: str
    embeddings: Float32[np.ndarray, "k d"] | None = None
    features: Float32[np.ndarray, "k ..."] | None = None
    digest: str = ""
    cause: str = ""
    notes: tuple[str, ...] = ()
    decoder: str = ""
    duration_seconds: float | None = None
    stamps: tuple[tuple[FrameStamp, ...], ...] = ()
    span: tuple[float | None, float | None] = (None, None)

    @property
    def error(self) -> VideoError | None:
        """Why it could not be read, with its name; None where it was."""
        return VideoError(source_name(self.name), self.cause) if self.cause else None
