"""Read a timeline from the index of the container, and packets only where that index has to be checked.

The walk over all packets of a film of six hours takes 3 s and reads all of it. What is taken from an index is compared
with packets (`mp4_index.py`, `matroska_index.py`); None leaves the file to the walk. Short files are walked: it costs
no more.
"""

from collections.abc import Callable

from clipact.video.clip import FramesDifferError, Timeline
from clipact.video.matroska_index import read_matroska_index
from clipact.video.media import Media
from clipact.video.mp4_index import read_mp4_index

# Walking 10,000 packets costs 40 ms, about what reading an index and checking it does.
LEAST_FRAMES = 10_000

# Of these each packet shows one frame, and a key frame is what its container calls one.
_CODECS = {"h264", "hevc", "vp9", "av1", "libdav1d", "libaom-av1", "mpeg4"}

# By the first of FFmpeg's names of the container format.
_INDEXES: dict[str, Callable[..., Timeline | None]] = {"mov": read_mp4_index, "matroska": read_matroska_index}


def read_index(media: Media) -> Timeline | None:
    """The timeline as the index of the container has it; None where it is not trusted, or the file is short.

    Of a file with fewer than LEAST_FRAMES the packets are as soon read. Where the file is read next is undefined.
    """
    read = _INDEXES.get(media.format.split(",")[0])
    if read is None or media.context.name not in _CODECS:
        return None
    try:
        return read(media, least_frames=LEAST_FRAMES)
    except (FramesDifferError, OverflowError):  # a header may claim any time
        return None
