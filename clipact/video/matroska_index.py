"""Read the timeline of a Matroska or WebM file from its cues, which tell when key frames are shown.

The frames between two of them are counted by the constant rate, on which every key frame must lie, and read where they
are asked for (`confirm`). The beginning, the end and some stretches between are read at once. A file of another rate,
without cues, or short is left to the walk. A frame that is missing in a stretch that was never read is not noticed: a
note says that the frames are counted by the rate, unless the file tells their number.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from clipact.video.clip import FramesDifferError, KeyFrame, Timeline, shortfall
from clipact.video.index_check import INDEX_DIFFERS, packets_from
from clipact.video.media import Media

_MOST_REORDERED = 20  # packets; H.264 and HEVC allow 16
_CHECKED_STRETCHES = 12  # besides those that are asked for


def read_matroska_index(media: Media, *, least_frames: int) -> Timeline | None:
    """The timeline of a Matroska file of a constant rate; FramesDifferError when the packets differ.

    None of files with fewer than `least_frames`. What is reckoned is left to `confirm` (`Timeline.read_spans`).
    """
    _, whole = media.promised_seconds
    rates = [media.stream.average_rate, media.stream.base_rate, media.stream.guessed_rate]
    rates = list(dict.fromkeys(rate for rate in rates if rate))
    if not whole or not rates or whole * float(max(rates)) < least_frames:
        return None
    media.seek(0)  # FFmpeg reads the cues when it first has to seek
    key_ticks = np.array([entry.timestamp for entry in media.stream.index_entries if entry.is_keyframe], np.int64)
    if len(key_ticks) < 3 or (np.diff(key_ticks) <= 0).any():
        return None
    for rate in rates:
        places = _places(key_ticks, 1 / (Fraction(rate) * media.time_base))
        if places is not None:
            return _between_keys(media, key_ticks, places, rate)
    return None


def _places(key_ticks: np.ndarray, step: Fraction) -> np.ndarray | None:
    """How many frames come before each key frame where one follows another after `step` ticks; None where not."""
    if step < 2:
        return None
    past = (key_ticks - key_ticks[0]).astype(np.float64)
    places = np.rint(past / float(step)).astype(np.int64)
    if (np.abs(past - places * float(step)) > 1).any() or (np.diff(places) <= 0).any():
        return None
    return places


def _between_keys(media: Media, key_ticks: np.ndarray, places: np.ndarray, rate: Fraction) -> Timeline | None:
    """The timeline of a file whose key frames are known, its beginning and end read, and some stretches between."""
    gaps = np.diff(places)
    if gaps.max() * (_CHECKED_STRETCHES + 2) > places[-1]:  # reading some stretches would be most of the walk
        return None
    keys = [KeyFrame(tick, tick, None) for tick in key_ticks.tolist()]
    last_packets: list[Any] = []
    tail = _shown_between(media, keys[-1], None, keep=last_packets)
    first = next(iter(media.packets_from_start()), None)
    # What is shown before the first key frame, and packets without a duration, are the walk's affair.
    if not len(tail) or first is None or first.pts != keys[0].tick or media.read_error:
        return None
    ticks = np.concatenate([_reckon(key_ticks, places, Fraction(rate) * media.time_base), tail])
    if (np.diff(ticks) <= 0).any():
        return None
    latest = max(last_packets, key=lambda packet: packet.pts)
    timeline = Timeline(
        ticks=ticks,
        time_base=media.time_base,
        last_ticks=latest.duration or int(np.median(np.diff(ticks))),
        keys=tuple(keys),
        read_spans=frozenset({len(keys) - 1}),
    )
    checked = np.linspace(0, len(keys) - 2, _CHECKED_STRETCHES).astype(int)
    timeline = confirm(media, timeline, places[checked].tolist())
    notes = media.notes + shortfall(media, timeline, found=len(ticks))
    told = {name: value for name, value in media.stream.metadata.items() if name.startswith("NUMBER_OF_FRAMES")}
    if told:
        return replace(timeline, notes=notes) if {str(len(ticks))} == set(told.values()) else None
    return replace(timeline, notes=(*notes, f"its frames are counted by its constant rate, {float(rate):.6g} a second"))


def _reckon(key_ticks: np.ndarray, places: np.ndarray, frames_a_tick: Fraction) -> np.ndarray:
    """When the frames before the last key frame should be shown."""
    numbers = np.arange(places[-1])
    step = float(1 / frames_a_tick)
    # Multiples of the step, rounded half up: from which time on they count, all key frames together tell.
    earliest, latest = (key_ticks - 0.5 - places * step).max(), (key_ticks + 0.5 - places * step).min()
    start = float(key_ticks[0])
    if not earliest <= start < latest:
        start = (earliest + latest) / 2
    ticks = np.floor(start + numbers * step + 0.5).astype(np.int64)
    if np.array_equal(ticks[places[:-1]], key_ticks[:-1]):
        return ticks
    return np.rint(np.interp(numbers, places, key_ticks)).astype(np.int64)


def _shown_between(media: Media, key: KeyFrame, after: KeyFrame | None, *, keep: list[Any] | None = None) -> np.ndarray:
    """When the frames from one key frame up to another (None: to the end) are shown, rising, from their packets."""
    found: list[int] = []
    left = _MOST_REORDERED
    for packet in packets_from(media, key):
        if packet.pts is None or packet.is_discard or packet.is_corrupt:
            raise FramesDifferError(INDEX_DIFFERS)
        if after is not None and packet.pts >= after.tick:
            left -= 1  # frames that are shown before the next key frame may follow it
            if not left:
                break
            continue
        if packet.pts >= key.tick:
            found.append(packet.pts)
            if keep is not None:
                keep.append(packet)
    if media.read_error or len(set(found)) < len(found):
        raise FramesDifferError(INDEX_DIFFERS)
    return np.sort(np.array(found, dtype=np.int64))


def confirm(media: Media, timeline: Timeline, indices: Iterable[int]) -> Timeline:
    """The timeline with the frames between two key frames as the packets say, for those that hold `indices`.

    The same object when they say the same, or were read before. FramesDifferError when there are more or fewer frames
    than the rate promised, or they are shown at other times.
    """
    known = timeline.read_spans
    if known is None:
        return timeline
    places = [*np.searchsorted(timeline.ticks, timeline.key_ticks).tolist(), len(timeline)]
    spans = {bisect_right(places, index) - 1 for index in indices} - known
    if not spans:
        return timeline
    ticks = timeline.ticks.copy()
    for span in sorted(spans):
        after = timeline.keys[span + 1] if span + 1 < len(timeline.keys) else None
        found = _shown_between(media, timeline.keys[span], after)
        there = slice(places[span], places[span + 1])
        if len(found) != len(ticks[there]) or (np.abs(found - ticks[there]) > 1).any():
            raise FramesDifferError(INDEX_DIFFERS)
        ticks[there] = found
    if np.array_equal(ticks, timeline.ticks):
        return timeline
    return replace(timeline, ticks=ticks, read_spans=known | spans)
