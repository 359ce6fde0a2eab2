"""Frames out of a file with PyAV: exactly those asked for, decoding as little as possible.

The packets say when every frame is shown and where key frames are. Only the stretches from a key frame to the last
frame wanted after it are decoded; frames that no other refers to are left out of them. What comes out is checked
against what was planned. No torch, no global state, one object a thread.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from clipact.video.media import Media
from clipact.video.packets import FramesDifferError, read_timeline
from clipact.video.references import is_unreferenced, nal_length_bytes
from clipact.video.rgb import RgbConverter
from clipact.video.timeline import KeyFrame, Timeline
from clipact.video.video import Video

# Codecs of which FFmpeg can leave out frames that no other refers to and still give the rest unchanged: up to half
# of the work where there are B-frames. The conformance tests compare every frame of each.
_LEAVES_OUT = {"h264", "hevc"}

# Reading over a packet costs 5 to 7 microseconds (10 in WebM), a jump 26 to 50 (MP4, Matroska, FLV, MPEG-TS): measured.
_PACKETS_A_JUMP = 6


class PyavVideo(Video):
    """A file whose packets carry true time stamps."""

    decoder = "pyav"

    def __init__(self, media: Media) -> None:
        self.name = media.name
        self._media = media
        self._rgb = RgbConverter(media.name)
        self._position: int | None = None  # of the packet that is read next; None: unknown
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
        """Each wanted frame, group by group of those that hang on the same key frame."""
        number = {int(timeline.ticks[index]): index for index in sorted(set(indices))}
        known = set(timeline.ticks.tolist())
        for key, wanted in group_by_key(list(number), timeline.keys):
            missing = set(wanted)
            for frame in self._decode_group(key, wanted):
                if frame.pts not in known:
                    raise FramesDifferError
                if frame.pts in missing:
                    missing.remove(frame.pts)
                    if frame.is_corrupt:
                        self._damaged.append(number[frame.pts])
                    yield number[frame.pts], self._rgb.convert(frame)
            if missing:
                raise FramesDifferError

    def _decode_group(self, key: KeyFrame | None, wanted: Sequence[int]) -> Iterator[Any]:
        """What comes out from the key frame (None: the beginning) on, until all of `wanted` went in and came out."""
        context = self._media.context
        may_leave_out = context.name in _LEAVES_OUT and context.field_order in (0, 1)  # whole frames, not fields
        to_feed = set(wanted)
        packets = self._packets_from(key)
        length_bytes = nal_length_bytes(context.name, context.extradata)
        for packet in packets:
            if may_leave_out and packet.pts not in to_feed:
                if is_unreferenced(packet, context.name, length_bytes):
                    continue
                context.skip_frame = "NONREF"  # where the headers are not read here, FFmpeg leaves it out
            else:
                context.skip_frame = "DEFAULT"
            yield from feed(context, packet)
            to_feed.discard(packet.pts)
            if not to_feed:
                break
        yield from feed(context, None)
        context.flush_buffers()

    def _packets_from(self, key: KeyFrame | None) -> Iterator[Any]:
        """The packets from the key frame on; those before it are read over, or jumped over where that is cheaper."""
        start = 0 if key is None else key.position
        ahead = -1 if self._position is None else start - self._position
        packets = self._media.packets() if 0 <= ahead <= _PACKETS_A_JUMP else self._jump(key)
        self._position = None
        begun = False
        for packet in packets:
            begun = begun or key is None or packet.pts == key.tick
            if begun:
                self._position = start = start + 1
                yield packet

    def _jump(self, key: KeyFrame | None) -> Iterator[Any]:
        """The packets from somewhere at or before the key frame on."""
        if key is not None:
            # MP4 and Matroska look for when a frame is shown, MPEG-TS for when it is decoded: asked for the latter,
            # MP4 lands a key frame early, which costs 0.9 ms of packets read in vain.
            for tick in (key.tick, key.seek_tick):
                self._media.seek(tick)
                packets = self._media.packets()
                first = next(packets, None)
                if first is not None and _is_not_past(first, key):
                    return chain((first,), packets)
        self._media.rewind()
        return self._media.packets()


def _is_not_past(packet: Any, key: KeyFrame) -> bool:
    """Whether the key frame is this packet or a later one."""
    stamp = packet.pts if packet.dts is None else packet.dts
    return packet.pts == key.tick or (stamp is not None and stamp <= key.seek_tick)


def feed(context: Any, packet: Any | None) -> list[Any]:
    """The frames that come out when a packet goes in (None: all that are left); none for a damaged packet."""
    try:
        return list(context.decode(packet))
    except av.error.FFmpegError:
        return []


def group_by_key(ticks: Sequence[int], keys: Sequence[KeyFrame]) -> Iterator[tuple[KeyFrame | None, list[int]]]:
    """The ticks, rising, put under the last key frame that is shown no later; None where there is none."""
    groups: dict[KeyFrame | None, list[int]] = {}
    starts = np.array([key.tick for key in keys], dtype=np.int64)
    for tick in ticks:
        place = int(np.searchsorted(starts, tick, side="right"))
        groups.setdefault(keys[place - 1] if place else None, []).append(tick)
    yield from groups.items()
