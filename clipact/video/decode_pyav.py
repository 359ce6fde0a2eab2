"""Decode single frames of a file with PyAV, exactly and with little work.

The packets tell when each frame is shown and where key frames are. Each wanted frame is reached from the key frame
before it, over one GOP span; frames that no other refers to are left out. Packets are read in the file's order, with as
few seeks as pay. What comes out is checked against the timeline. No torch, no global state, one object a thread.
"""

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from clipact.video.clip import FramesDifferError, KeyFrame, Timeline, Video, read_timeline
from clipact.video.container_index import read_index
from clipact.video.damage import DamageTracker
from clipact.video.matroska_index import confirm
from clipact.video.media import Media
from clipact.video.picture_notes import note_pixel_shape
from clipact.video.rgb import UPRIGHT, RgbConverter, display_matrix
from clipact.video.slice_headers import is_unreferenced, nal_length_bytes, states_orientation


class PyavVideo(Video):
    """A file whose packets carry true time stamps."""

    decoder = "pyav"

    def __init__(self, media: Media) -> None:
        self.name = media.name
        self._media = media
        self._spans = GopSpans(media)
        self._rgb = RgbConverter(media.name)
        self._damaged: list[int] = []
        self._damage = DamageTracker()
        self._first = find_old_encoder(media)
        self._ignores_matrix = False
        self._told: Any = None  # the decoder that has seen it

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
        return without_lost_start(self._media, read_timeline(self._media))

    def indexed_timeline(self) -> Timeline | None:
        """The timeline from the container's index, where it can be trusted."""
        timeline = read_index(self._media)
        return None if timeline is None else without_lost_start(self._media, timeline)

    def confirm(self, timeline: Timeline, indices: Sequence[int]) -> Timeline:
        """The timeline with the stretches of these frames as their packets say."""
        return confirm(self._media, timeline, indices)

    def decode(self, timeline: Timeline, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """Yield each wanted frame, one GOP span after another."""
        number = {int(timeline.ticks[index]): index for index in sorted(set(indices))}
        for key, wanted in group_by_key(list(number), timeline):
            missing = set(wanted)
            matrix = None
            for frame in self._decode_span(key, wanted):
                matrix = matrix or self._matrix(frame)
                if not timeline.shows(frame.pts):
                    raise FramesDifferError
                if key and frame.pts == key.tick and not (frame.key_frame or self._media.context.name == "h264"):
                    raise FramesDifferError("its container calls frames key frames that are none")
                damaged = self._damage.follow(frame)
                if frame.pts in missing:
                    missing.remove(frame.pts)
                    if damaged:
                        self._damaged.append(number[frame.pts])
                    yield number[frame.pts], self._rgb.convert(frame, matrix=matrix)
            if missing:
                raise FramesDifferError

    def _decode_span(self, key: KeyFrame | None, wanted: Sequence[int]) -> Iterator[Any]:
        """What comes out from the key frame (None: the beginning) on, until all of `wanted` went in and came out."""
        self._damage.restart()
        self._tell_encoder()
        context = self._media.context
        begins = True
        for packet, needed in self._spans.packets(key, wanted):
            if begins:
                self._ignores_matrix = has_own_orientation(self._media, packet)
                begins = False
            context.skip_frame = "DEFAULT" if needed else "NONREF"
            yield from feed(context, packet, rejected=self._damage.reject)
        yield from feed(context, None)
        context.flush_buffers()

    def _matrix(self, first: Any) -> tuple[int, int, int, int]:
        """The display matrix of a GOP span, by the first frame of it."""
        return UPRIGHT if self._ignores_matrix else display_matrix(first)

    def _tell_encoder(self) -> None:
        """Feed the packet that names the encoder to a decoder that has not seen it."""
        context = self._media.context
        if self._first is None or context is self._told:
            return
        feed(context, self._first)
        feed(context, None)
        context.flush_buffers()
        self._told = context


def has_own_orientation(media: Media, packet: Any) -> bool:
    """Whether a packet turns the picture in it by itself, which is ignored, as the ffmpeg command does.

    FFmpeg's decoders turn the one picture that carries the message, and leave those after it as they are stored.
    """
    context = media.context
    return states_orientation(packet, context.name, nal_length_bytes(context.name, context.extradata))


# x264 before this build wrote lossless 4:4:4 otherwise than the standard says, which FFmpeg imitates.
_STANDARD_X264 = 151


def names_old_encoder(media: Media, first: Any) -> bool:
    """Whether FFmpeg decodes the stream right only when it has seen `first`, its first packet.

    Which build of x264 wrote a stream is told by a note before its first frame, and nowhere else.
    """
    if media.context.name != "h264" or "4:4:4" not in (media.context.profile or ""):
        return False
    build = re.search(rb"x264 - core (\d+)", bytes(first))
    return build is not None and int(build[1]) < _STANDARD_X264


def find_old_encoder(media: Media) -> Any | None:
    """Return the first packet if it names an old encoder (`names_old_encoder`), else None.

    Then the stream is decoded by one thread: FFmpeg's threads tell each other of the encoder too late, now and then.
    """
    if media.context.name != "h264" or "4:4:4" not in (media.context.profile or ""):
        return None
    first = next(media.packets_from_start(), None)
    if first is None or not names_old_encoder(media, first):
        return None
    media.use_threads(1)
    media.rewind()
    return first


def without_lost_start(media: Media, timeline: Timeline) -> Timeline:
    """The timeline without the frames that cannot be decoded because the file begins in the middle of a GOP.

    Where frames are shown before the first key frame, the beginning is decoded to find the first that comes out.
    """
    first_key = min(timeline.keys, key=lambda key: key.seek_tick, default=None)
    if first_key is None or first_key.tick <= int(timeline.ticks[0]):
        return timeline
    frames = (frame for packet in chain(media.packets_from_start(), [None]) for frame in feed(media.context, packet))
    first = next(frames, None)
    media.rewind()
    lost = 0 if first is None or first.pts is None else int(np.searchsorted(timeline.ticks, first.pts))
    if not lost:
        return timeline
    note = f"it begins between key frames: its first {lost} frames cannot be decoded and are left out"
    return replace(timeline, ticks=timeline.ticks[lost:], notes=(*timeline.notes, note))


def feed(context: Any, packet: Any | None, *, rejected: Callable[[], None] | None = None) -> list[Any]:
    """The frames that come out when a packet goes in (None: all that are left); none for a damaged packet.

    `rejected` is called for a packet that the decoder refuses.
    """
    try:
        return list(context.decode(packet))
    except av.error.FFmpegError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError from error
        if rejected:
            rejected()
        return []


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
        ahead = -1 if self._position is None or start is None else start - self._position
        packets = self._media.packets() if 0 <= ahead <= _PACKETS_A_JUMP else self._jump(key)
        self._position = None
        begun = False
        for packet in packets:
            begun = begun or key is None or packet.pts == key.tick
            if begun:
                self._position = start = None if start is None else start + 1
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
