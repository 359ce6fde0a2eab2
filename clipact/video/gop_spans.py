"""Which packets of a file must be decoded for a few frames of it: stretches, each from a key frame to the last frame
wanted after it, less what no other frame refers to. They are read in the order of the file, with as few jumps as pay.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from clipact.video.media import Media
from clipact.video.timeline import KeyFrame

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
    """Reads the packets of stretches from an open file, and remembers where in it the last one ended."""

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
    """Whether frames may be left out of this file's stretches: its codec allows it, and its frames are no fields."""
    return media.context.name in _LEAVES_OUT and media.context.field_order in (0, 1)


def group_by_key(ticks: Sequence[int], keys: Sequence[KeyFrame]) -> Iterator[tuple[KeyFrame | None, list[int]]]:
    """The ticks, rising, put under the last key frame that is shown no later; None where there is none."""
    groups: dict[KeyFrame | None, list[int]] = {}
    starts = np.array([key.tick for key in keys], dtype=np.int64)
    for tick in ticks:
        place = int(np.searchsorted(starts, tick, side="right"))
        groups.setdefault(keys[place - 1] if place else None, []).append(tick)
    yield from groups.items()


def _is_not_past(packet: Any, key: KeyFrame) -> bool:
    """Whether the key frame is this packet or a later one."""
    stamp = packet.pts if packet.dts is None else packet.dts
    return packet.pts == key.tick or (stamp is not None and stamp <= key.seek_tick)
