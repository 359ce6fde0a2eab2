"""Decode single frames of a file with PyAV, exactly and with little work.

The packets tell when each frame is shown and where key frames are. Each wanted frame is reached from the key frame
before it, over one GOP span; frames that no other refers to are left out. Packets are read in the file's order, with as
few seeks as pay. What comes out is checked against the timeline. No torch, no global state, one object a thread.
"""

import errno
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from clipact.video.clip import FramesDifferError, KeyFrame, Timeline, Video, read_timeline
from clipact.video.media import Media
from clipact.video.picture_notes import note_pixel_shape
from clipact.video.rgb import RgbConverter


class PyavVideo(Video):
    """A file whose packets carry true time stamps."""

    decoder = "pyav"

    def __init__(self, media: Media) -> None:
        self.name = media.name
        self._media = media
        self._spans = GopSpans(media)
        self._rgb = RgbConverter(media.name)
        self._damaged: list[int] = []

    def close(self) -> None:
        """Give the file back."""
        self._media.close()

    def damaged(self) -> Sequence[int]:
        """The frames decoded so far that came out of damaged packets."""
        return self._damaged

    def picture_notes(self) -> tuple[str, ...]:
        """What is unusual about the shape of its pixels, and the frames decoded so far."""
        return note_pixel_shape(self._media) + self._rgb.notes

    def timeline(self) -> Timeline:
        """When each frame is shown, from the packets alone."""
        return read_timeline(self._media)

    def decode(self, timeline: Timeline, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """Yield each wanted frame, one GOP span after another."""
        number = {int(timeline.ticks[index]): index for index in sorted(set(indices))}
        for key, wanted in group_by_key(list(number), timeline):
            missing = set(wanted)
            for frame in self._decode_span(key, wanted):
                if not timeline.shows(frame.pts):
                    raise FramesDifferError
                if frame.pts in missing:
                    missing.remove(frame.pts)
                    if frame.is_corrupt:
                        self._damaged.append(number[frame.pts])
                    yield number[frame.pts], self._rgb.convert(frame)
            if missing:
                raise FramesDifferError

    def _decode_span(self, key: KeyFrame | None, wanted: Sequence[int]) -> Iterator[Any]:
        """What comes out from the key frame (None: the beginning) on, until all of `wanted` went in and came out."""
        context = self._media.context
        for packet, needed in self._spans.packets(key, wanted):
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


_H264_SLICES = range(1, 6)
_H264_IDR = 5
_HEVC_SLICES = range(32)
_HEVC_IDR = (19, 20)
_START_CODE = b"\0\0\1"
_HEVC_UNREFERENCED = range(0, 16, 2)  # TRAIL_N, TSA_N, ... (ITU-T H.265, table 7-1)


def is_unreferenced(packet: Any, codec: str, length_bytes: int) -> bool:
    """Whether the packet holds a picture that is no reference; False where its headers do not say.

    `length_bytes` is the size of the length before each NAL unit (MP4, Matroska); 0 for start codes (MPEG-TS).
    """
    if not length_bytes or codec not in ("h264", "hevc"):
        return False
    header = _slice_header(packet, codec, length_bytes)
    if header is None:
        return False
    return header >> 5 & 3 == 0 if codec == "h264" else header >> 1 & 63 in _HEVC_UNREFERENCED


def resets(packet: Any, codec: str, length_bytes: int) -> bool:
    """Whether the packet holds a picture of H.264 or HEVC at which a decoder forgets all before (IDR)."""
    header = _slice_header(packet, codec, length_bytes)
    if header is None:
        return False
    return header & 31 == _H264_IDR if codec == "h264" else header >> 1 & 63 in _HEVC_IDR


def _slice_header(packet: Any, codec: str, length_bytes: int) -> int | None:
    """The first byte of the first slice; None where there is none."""
    for header in _after_lengths(packet, length_bytes) if length_bytes else _after_start_codes(packet):
        if (header & 31 in _H264_SLICES) if codec == "h264" else (header >> 1 & 63 in _HEVC_SLICES):
            return header
    return None


def _after_lengths(packet: Any, length_bytes: int) -> Iterator[int]:
    data = memoryview(packet)
    place = 0
    while place + length_bytes < len(data):
        yield data[place + length_bytes]
        place += length_bytes + int.from_bytes(data[place : place + length_bytes], "big")


def _after_start_codes(packet: Any) -> Iterator[int]:
    data = bytes(packet)
    place = data.find(_START_CODE)
    while 0 <= place < len(data) - len(_START_CODE):
        yield data[place + len(_START_CODE)]
        place = data.find(_START_CODE, place + len(_START_CODE))


def nal_length_bytes(codec: str, extradata: bytes | None) -> int:
    """The size of NAL unit lengths that the decoder's configuration states; 0 where start codes are used."""
    if not extradata or extradata[0] != 1:
        return 0
    place = {"h264": 4, "hevc": 21}.get(codec)
    return (extradata[place] & 3) + 1 if place is not None and len(extradata) > place else 0


# Codecs of which FFmpeg can leave out frames that no other refers to and still give the rest unchanged: up to half
# of the work where there are B-frames. The conformance tests compare every frame of each.
_LEAVES_OUT = {"h264", "hevc"}

# Reading over a packet costs 3 to 5 microseconds, a jump 8 to 23, 2 to 5 times as much: eval/benchmarks/seek_cost.py.
_PACKETS_A_JUMP = 4


class GopSpans:
    """Reads the packets of GOP spans from an open file, and remembers where in it the last one ended."""

    def __init__(self, media: Media) -> None:
        self._media = media
        self._position: int | None = None  # of the packet that is read next; None: unknown

    def packets(self, key: KeyFrame | None, wanted: Sequence[int]) -> Iterator[tuple[Any, bool]]:
        """The packets from the key frame (None: the beginning) to the last of `wanted`, and whether each is needed.

        One that is not needed need not come out of the decoder, but others may refer to it: FFmpeg's skip_frame
        "NONREF" looks. Those of which the headers read here say that none does are left out.
        """
        context = self._media.context
        may_leave_out = leaves_out(self._media)
        length_bytes = nal_length_bytes(context.name, context.extradata)
        missing = set(wanted)
        for packet in self._packets_from(key):
            needed = not may_leave_out or packet.pts in missing
            if not needed and is_unreferenced(packet, context.name, length_bytes):
                continue
            missing.discard(packet.pts)
            yield packet, needed
            if not missing:
                return

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


def leaves_out(media: Media) -> bool:
    """Whether frames may be left out of this file's GOP spans: its codec allows it, and its frames are no fields."""
    return media.context.name in _LEAVES_OUT and media.context.field_order in (0, 1)


def group_by_key(ticks: Sequence[int], timeline: Timeline) -> Iterator[tuple[KeyFrame | None, list[int]]]:
    """The ticks, rising, put under the last key frame that is shown no later; None where there is none."""
    groups: dict[KeyFrame | None, list[int]] = {}
    for tick in ticks:
        groups.setdefault(timeline.key_before(tick), []).append(tick)
    yield from groups.items()


def _is_not_past(packet: Any, key: KeyFrame) -> bool:
    """Whether the key frame is this packet or a later one."""
    stamp = packet.pts if packet.dts is None else packet.dts
    return packet.pts == key.tick or (stamp is not None and stamp <= key.seek_tick)
