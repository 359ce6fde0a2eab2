"""The packets that a few frames of a file hang on, as a small MP4 in memory, for decoders that take files alone.

Nothing is encoded anew: packets of H.264 and HEVC are copied as they are, those that no other frame refers to are left
out. What is left has gaps, which a decoder would take for long frames, so that all packets get times of their own.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from clipact.video.media import Media
from clipact.video.packets import FramesDifferError
from clipact.video.references import nal_length_bytes, resets
from clipact.video.stretches import Stretches, group_by_key, leaves_out
from clipact.video.timeline import KeyFrame, Timeline

# From frame to frame: longer than any header says that a frame lasts.
_STEP_SECONDS = 1000

# Compressed bytes in one excerpt, after which the next stretch begins another: about a minute of video.
_EXCERPT_BYTES = 8 << 20

# Compressed bytes in one stretch at most: it is held three times while it is copied. A file with one key frame in ten
# minutes is better read from where it lies.
_STRETCH_BYTES = 32 << 20

_REFUSED = (av.error.FFmpegError, ValueError)  # what PyAV raises when MP4 has no place for something


class CannotExcerptError(Exception):
    """These packets cannot be copied, or are too many: the file itself must be opened."""


@dataclass(frozen=True, kw_only=True)
class ExcerptFrame:
    """A wanted frame: its number in the whole video, its number in the excerpt, and when it is shown there."""

    index: int
    place: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """A file in memory, and which of its frames are wanted."""

    file: bytes
    frames: tuple[ExcerptFrame, ...]


def can_excerpt(media: Media) -> bool:
    """Whether packets can be copied, and some left out: of H.264 and HEVC whose decoder's configuration is known."""
    return leaves_out(media) and bool(media.context.extradata)


def excerpts(media: Media, timeline: Timeline, indices: Sequence[int]) -> Iterator[Excerpt]:
    """Files that together hold the frames `indices` and all that decoding them needs; mostly it is one.

    CannotExcerptError for packets that cannot be copied; FramesDifferError when a frame's packet does not come.
    """
    number = {int(timeline.ticks[index]): index for index in sorted(set(indices))}
    stretches = Stretches(media)
    codec, length_bytes = media.context.name, nal_length_bytes(media.context.name, media.context.extradata)
    writer: _Writer | None = None
    for key, wanted in group_by_key(list(number), timeline.keys):
        packets = _collect(stretches, key, wanted)
        anew = resets(packets[0], codec, length_bytes)
        if not anew and codec == "h264":  # FFmpeg begins at such a key frame, but holds some frames after it back
            raise CannotExcerptError
        # HEVC's decoder begins there, but does not go on over it: it takes its number for one that it has had.
        if writer and (writer.held_bytes > _EXCERPT_BYTES or not anew):
            yield writer.finish()
            writer = None
        writer = writer or _Writer(media)
        writer.add(packets, {tick: number[tick] for tick in wanted})
    if writer:
        yield writer.finish()


def _collect(stretches: Stretches, key: KeyFrame | None, wanted: Sequence[int]) -> list[Any]:
    """The packets of one stretch."""
    packets, held_bytes = [], 0
    for packet, _ in stretches.packets(key, wanted):
        packets.append(packet)
        held_bytes += packet.size
        # MP4 is not made to say that what decodes a packet changes.
        if held_bytes > _STRETCH_BYTES or packet.pts is None or packet.has_sidedata("new_extradata"):
            raise CannotExcerptError
    if not {packet.pts for packet in packets if not packet.is_discard}.issuperset(wanted):
        raise FramesDifferError("its packets are others than at first: is it being written?")
    if not packets[0].is_keyframe:
        raise CannotExcerptError
    return packets


class _Writer:
    """An excerpt that is being written."""

    def __init__(self, media: Media) -> None:
        self.held_bytes = 0
        self._buffer = io.BytesIO()
        options = {"video_track_timescale": "1", "use_editlist": "0"}
        try:
            self._container = av.open(self._buffer, "w", format="mp4", options=options)
            self._stream = self._container.add_stream_from_template(media.stream, opaque=True)
        except _REFUSED as error:
            raise CannotExcerptError from error
        self._frames: list[ExcerptFrame] = []
        self._packets = 0
        self._steps = 0  # of time that are taken

    def add(self, packets: Sequence[Any], number: dict[int, int]) -> None:
        """Take in one stretch; `number` has the wanted frames' numbers in the whole video, by their ticks."""
        # A packet is decoded at its place in the stretch, and shown at its rank, as much later as the last one needs.
        by_time = sorted(range(len(packets)), key=lambda at: packets[at].pts)
        rank = {at: shown for shown, at in enumerate(by_time)}
        delay = max(at - shown for at, shown in rank.items())
        for at, packet in enumerate(packets):
            shown = (self._steps + delay + rank[at]) * _STEP_SECONDS
            if packet.pts in number and not packet.is_discard:
                self._frames.append(
                    ExcerptFrame(index=number[packet.pts], place=self._packets + rank[at], seconds=float(shown))
                )
            copy = av.Packet(bytes(packet))  # a new one, because no packet forgets that an edit list hides its frame
            copy.stream, copy.time_base, copy.is_keyframe = self._stream, Fraction(1), packet.is_keyframe
            copy.pts, copy.dts, copy.duration = shown, (self._steps + at) * _STEP_SECONDS, _STEP_SECONDS
            try:
                self._container.mux(copy)
            except _REFUSED as error:
                raise CannotExcerptError from error
            self.held_bytes += packet.size
        self._packets += len(packets)
        self._steps += len(packets) + delay

    def finish(self) -> Excerpt:
        """The excerpt; nothing can be added any more."""
        try:
            self._container.close()
        except _REFUSED as error:
            raise CannotExcerptError from error
        frames = tuple(sorted(self._frames, key=lambda frame: frame.place))
        return Excerpt(file=self._buffer.getvalue(), frames=frames)
