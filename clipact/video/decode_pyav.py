"""Frames out of a file with PyAV: exactly those asked for, decoding as little as possible.

The packets say when every frame is shown and where key frames are. Only the stretches that wanted frames hang on are
decoded. What comes out is checked against what was planned. No torch, no global state, one object a thread.
"""

import errno
from collections.abc import Iterator, Sequence
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from clipact.video.clip import Video
from clipact.video.gop_spans import GopSpans, group_by_key
from clipact.video.media import Media
from clipact.video.rgb import RgbConverter
from clipact.video.timeline import FramesDifferError, KeyFrame, Timeline, read_timeline


class PyavVideo(Video):
    """A file whose packets carry true time stamps."""

    decoder = "pyav"

    def __init__(self, media: Media) -> None:
        self.name = media.name
        self._media = media
        self._stretches = GopSpans(media)
        self._rgb = RgbConverter(media.name)
        self._damaged: list[int] = []

    def close(self) -> None:
        """Give the file back."""
        self._media.close()

    def damaged(self) -> Sequence[int]:
        """The frames decoded so far that came out of damaged packets."""
        return self._damaged

    def timeline(self) -> Timeline:
        """When each frame is shown, from the packets alone."""
        return read_timeline(self._media)

    def decode(self, timeline: Timeline, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """Each wanted frame, stretch by stretch."""
        number = {int(timeline.ticks[index]): index for index in sorted(set(indices))}
        known = set(timeline.ticks.tolist())
        for key, wanted in group_by_key(list(number), timeline.keys):
            missing = set(wanted)
            for frame in self._decode_stretch(key, wanted):
                if frame.pts not in known:
                    raise FramesDifferError
                if frame.pts in missing:
                    missing.remove(frame.pts)
                    if frame.is_corrupt:
                        self._damaged.append(number[frame.pts])
                    yield number[frame.pts], self._rgb.convert(frame)
            if missing:
                raise FramesDifferError

    def _decode_stretch(self, key: KeyFrame | None, wanted: Sequence[int]) -> Iterator[Any]:
        """What comes out from the key frame (None: the beginning) on, until all of `wanted` went in and came out."""
        context = self._media.context
        for packet, needed in self._stretches.packets(key, wanted):
            context.skip_frame = "DEFAULT" if needed else "NONREF"
            yield from feed(context, packet)
        yield from feed(context, None)
        context.flush_buffers()


def feed(context: Any, packet: Any | None) -> list[Any]:
    """The frames that come out when a packet goes in (None: all that are left); none for a damaged packet."""
    try:
        return list(context.decode(packet))
    except av.error.FFmpegError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError from error
        return []
