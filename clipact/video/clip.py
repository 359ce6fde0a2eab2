"""Clips, and the videos they are sampled from: a `Video` has a `Timeline`, a `Clip` has the frames that were sampled.

The timeline is read from packets alone, without decoding anything (4 microseconds a packet).
"""

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from clipact.clip_spec import FrameStamp
from clipact.errors import UsageError, VideoError
from clipact.video.damage import damage_notes
from clipact.video.media import Media
from clipact.video.slice_headers import may_be_reordered, nal_length_bytes


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Frames sampled from one video, upright, RGB.

    frames            one array of all frames; read it, do not write to it
    stamps            a line for each frame: its number in presentation order, and when it is shown
    source            the file, or what else the frames came from
    decoder           what decoded it, as `--decoder` names it
    duration_seconds  of the whole video, from its first frame to the end of its last; None when unknown
    notes             what a reader should know: frames repeated, a file cut short
    """

    frames: UInt8[np.ndarray, "t h w c"]
    stamps: tuple[FrameStamp, ...]
    source: str
    decoder: str
    duration_seconds: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.frames.dtype == np.uint8, self.frames.dtype
        assert self.frames.ndim == 4, self.frames.shape
        assert self.frames.shape[3] == 3, self.frames.shape
        assert len(self.frames) == len(self.stamps) > 0, (len(self.frames), len(self.stamps))

    def __len__(self) -> int:
        return len(self.stamps)


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """A frame at which a decoder may start.

    tick       when it is shown
    seek_tick  where to seek for it: its decoding time, which MP4 and MPEG-TS look for
    position   how many packets come before it; None where it is not known
    """

    tick: int
    seek_tick: int
    position: int | None


# Of one key frame: its object, three numbers, and its places in a tuple and an array.
_KEY_BYTES = 168


# How far the start or the end that is asked for may lie from a time stamp that is meant: half a millisecond, to which
# people and containers round. Of very fast video, a quarter of a frame.
_GRACE_SECONDS = 0.0005


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The frames of a video in the order in which they are shown.

    ticks       when each is shown, in units of `time_base` seconds, strictly rising
    time_base   seconds a tick
    last_ticks  how long the last frame is shown
    keys        where a decoder may start, by rising tick; none when only the beginning is safe
    notes       what is odd about the file
    read_spans  which of `keys` begin a stretch whose packets were read; None: all, and no tick is reckoned by the rate
    """

    ticks: np.ndarray
    time_base: Fraction
    last_ticks: int = 0
    keys: tuple[KeyFrame, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()
    read_spans: frozenset[int] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        assert len(self.ticks) > 0
        assert bool((np.diff(self.ticks) > 0).all())

    def __len__(self) -> int:
        return len(self.ticks)

    # Arrays as long as the film are made once: thousands of stretches of one film share its timeline.
    @cached_property
    def seconds(self) -> Float64[np.ndarray, " frames"]:
        """When each frame is shown; the first is at 0, whatever offset the container starts with."""
        seconds = np.round((self.ticks - self.ticks[0]) * float(self.time_base), 6)
        seconds.setflags(write=False)
        return seconds

    @cached_property
    def key_ticks(self) -> Int64[np.ndarray, " keys"]:
        """When each key frame is shown."""
        ticks = np.array([key.tick for key in self.keys], dtype=np.int64)
        ticks.setflags(write=False)
        return ticks

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes, with the arrays that are made when they are asked for."""
        return 2 * self.ticks.nbytes + len(self.keys) * _KEY_BYTES

    def shows(self, tick: int | None) -> bool:
        """Whether a frame is shown at this tick."""
        if tick is None:
            return False
        place = int(np.searchsorted(self.ticks, tick))
        return place < len(self.ticks) and int(self.ticks[place]) == tick

    def key_before(self, tick: int) -> KeyFrame | None:
        """The last key frame that is shown no later than `tick`; None where there is none."""
        place = int(np.searchsorted(self.key_ticks, tick, side="right"))
        return self.keys[place - 1] if place else None

    @property
    def duration_seconds(self) -> float:
        """From the first frame to the end of the last."""
        return round(float((int(self.ticks[-1]) + self.last_ticks - int(self.ticks[0])) * self.time_base), 6)

    def stamps(self, indices: list[int]) -> tuple[FrameStamp, ...]:
        """The ledger's lines for these frames."""
        return tuple(FrameStamp(i, float(s)) for i, s in zip(indices, self.seconds[indices], strict=True))

    def within(self, start_seconds: float | None, end_seconds: float | None, *, name: str) -> range:
        """The frames shown from `start_seconds` on and before `end_seconds`.

        Never empty: a span between two frames gives the one that is on show. A start past the end is a VideoError
        for the video `name`; an end that is not after the start is a UsageError.
        """
        start = start_seconds or 0.0
        if not 0 <= start < float("inf"):
            raise UsageError(f"the start asked for is {start} s; it is counted from the first frame, 0")
        if end_seconds is not None and not end_seconds > start:
            raise UsageError(f"the end asked for, {end_seconds:g} s, is not after the start, {start:g} s")
        if start >= self.duration_seconds and start > 0:
            raise VideoError(
                name, f"it lasts {self.duration_seconds:.3f} seconds; the start asked for, {start:g}, is past its end"
            )
        # A little grace: 0.1 must find the frame at 0.1 although neither is exact in binary, and 0.0333 the one that a
        # file in milliseconds has at 0.033. It does not depend on the time base: the same times are the same frames.
        grace = min(_GRACE_SECONDS, self.duration_seconds / len(self) / 4)
        low = bisect_left(self.seconds, start, key=lambda shown: shown + grace)
        high = len(self)
        if end_seconds is not None:
            high = bisect_left(self.seconds, end_seconds, key=lambda shown: shown + grace)
        return range(low, high) if low < high else range(max(low - 1, 0), max(low, 1))


class Video(ABC):
    """Frames in presentation order, to be had by number; to be closed.

    name     what messages and the ledger call the source
    decoder  what decodes it, as the ledger says it
    """

    name: str
    decoder: str

    @abstractmethod
    def timeline(self) -> Timeline:
        """When each frame is shown. May raise FramesDifferError: then they must be counted (`decode_sequential.py`)."""

    def indexed_timeline(self) -> Timeline | None:
        """The timeline as an index in the container has it; None where there is none to rely on."""
        return None

    def confirm(self, timeline: Timeline, indices: Sequence[int]) -> Timeline:
        """The timeline with what the packets say of the stretches that hold `indices`, where they were not read yet.

        The same object when nothing is left to read. FramesDifferError when they say something else.
        """
        return timeline

    @abstractmethod
    def decode(self, timeline: Timeline, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """Each frame named in `indices` once, with its number, upright, RGB; in any order.

        FramesDifferError when one that the timeline promised does not come.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the source back."""

    def damaged(self) -> Sequence[int]:
        """The frames decoded so far that the decoder calls damaged."""
        return ()

    def picture_notes(self) -> tuple[str, ...]:
        """What is unusual about its pictures, as far as the frames decoded so far tell."""
        return ()


# Codecs whose key frames FFmpeg finds in the stream itself, whatever an AVI says.
_TOLD_BY_PARSERS = {"h264", "hevc", "mpeg4"}

_STAMPS = "its time stamps do not hold"


class FramesDifferError(Exception):
    """This way of decoding would give other frames than the file shows: another way must be taken. It may say why."""


def read_timeline(media: Media, packets: Iterable[Any] | None = None) -> Timeline:
    """When each frame is shown and where key frames are, from every packet of the file (`packets`: as they come by).

    FramesDifferError when packets have no stamps, two have the same, or time runs back; VideoError when there are none.
    """
    # B-frames in AVI have no stamp of their own; libavformat's guesses are wrong for packed ones (all of HMDB51).
    if media.format == "avi" and media.context.has_b_frames:
        raise FramesDifferError(_STAMPS)
    if media.is_raw:
        raise FramesDifferError("it has no time stamps")
    ticks: list[int] = []
    keys: list[KeyFrame] = []
    decoded_at: list[int] = []
    latest = last_ticks = position = spoilt = 0
    hides_frames = media.context.name == "vp8"
    looks_reordered, in_order = False, bool(media.context.has_b_frames)
    length_bytes = nal_length_bytes(media.context.name, media.context.extradata)
    has_palette = media.context.pix_fmt == "pal8"
    found = media.packets_from_start() if packets is None else packets
    walked = media.progress(found, media.stream.frames or None, f"reading {media.name}")
    for position, packet in enumerate(walked, start=1):
        spoilt += packet.is_corrupt
        if packet.is_discard or (hides_frames and _is_hidden(packet)):
            continue
        tick = packet.pts
        if tick is None:
            raise FramesDifferError(_STAMPS)
        if (packet.is_keyframe or has_palette) and (cause := media.why_read_in_order(packet)):
            raise FramesDifferError(cause)
        if packet.is_keyframe:
            keys.append(KeyFrame(tick, tick if packet.dts is None else packet.dts, position - 1))
        if packet.dts is not None:
            decoded_at.append(packet.dts)
        if not ticks or tick > latest:
            latest, last_ticks = tick, packet.duration or 0
        else:
            in_order = False
        if in_order and not looks_reordered and not packet.is_keyframe:
            looks_reordered = may_be_reordered(packet, media.context.name, length_bytes)
        ticks.append(tick)
    if not ticks:
        raise media.no_frames()
    if len(set(ticks)) < len(ticks) or any(a > b for a, b in pairwise(decoded_at)):
        raise FramesDifferError(_STAMPS)
    if looks_reordered and in_order:
        raise FramesDifferError("its stamps say when frames are decoded, not when they are shown")
    # Of an AVI without an index FFmpeg takes every frame for a key frame.
    takes_all_for_keys = media.format == "avi" and 1 < len(ticks) == len(keys)
    if takes_all_for_keys and media.context.name not in _TOLD_BY_PARSERS and not media.context.codec.intra_only:
        raise FramesDifferError("it does not say which frames are key frames")
    timeline = Timeline(
        ticks=np.sort(np.array(ticks, dtype=np.int64)),
        time_base=media.time_base,
        last_ticks=last_ticks or _usual_step(ticks),
        keys=tuple(sorted(keys, key=lambda key: key.tick)),
    )
    return replace(timeline, notes=media.notes + damage_notes(spoilt) + shortfall(media, timeline, found=position))


def shortfall(media: Media, timeline: Timeline, *, found: int) -> tuple[str, ...]:
    """A note when fewer frames are found, shown or not, than the header promises, or they end before it says.

    More than two frames must be missing, for last frames are told of in many ways; where the header speaks of the whole
    file, whose sound may last longer, a tenth of it and half a second.
    """
    promised, there = media.stream.frames, timeline.duration_seconds
    if media.format == "avi":  # its header counts what only repeats the frame before, too, and so does its clock
        found = max(found, int(timeline.ticks[-1]) + timeline.last_ticks)
    if found + 2 < promised:
        return (f"cut short: {found} of {promised} frames are there",)
    if media.read_error:
        return (f"cut short after {there:.1f} s: {media.read_error}",)
    stream_seconds, file_seconds = media.promised_seconds
    seconds = stream_seconds or file_seconds or 0.0
    steps = np.diff(timeline.ticks) if len(timeline) > 1 else np.zeros(1)
    usual, longest = (float(step * float(timeline.time_base)) for step in (np.median(steps), steps.max()))
    lacking = max(2.5 * usual, 1.5 * longest) if stream_seconds else max(0.1 * seconds, 0.5)
    before = float(int(timeline.ticks[0]) * timeline.time_base) if media.promise_counts_from_zero else 0.0
    if there + max(before, 0.0) + lacking < seconds:
        return (f"cut short: its frames end after {there:.1f} of {seconds:.1f} s",)
    return ()


def _is_hidden(packet: Any) -> bool:
    """Whether decoding this VP8 packet shows nothing, which a bit of it says (RFC 6386, 9.1)."""
    return not memoryview(packet)[0] & 0x10


def _usual_step(ticks: Sequence[int] | np.ndarray) -> int:
    return int(np.median(np.diff(np.sort(ticks)))) if len(ticks) > 1 else 0
