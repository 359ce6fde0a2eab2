"""Which packets of a file must be decoded for a few frames of it: stretches, each from a key frame to the last frame
wanted after it, less what no other frame refers to. They are read in the order of the file, with as few jumps as pay.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from clipact.video.media import Media
from clipact.video.references import is_unreferenced, nal_length_bytes
from clipact.video.timeline import KeyFrame

# Codecs of which FFmpeg can leave out frames that no other refers to and still give the rest unchanged: up to half
# of the work where there are B-frames. The conformance tests compare every frame of each.
_LEAVES_OUT = {"h264", "hevc"}

# Reading over a packet costs 3 to 5 microseconds, a jump 8 to 23, 2 to 5 times as much: eval/benchmarks/seek_cost.py.
_PACKETS_A_JUMP = 4


class Stretches:
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
