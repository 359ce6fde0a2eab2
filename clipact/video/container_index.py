"""Read a timeline from the index of the container, and packets only where that index has to be checked.

The walk over all packets of a film of six hours takes 3 s and reads all of it. MP4 and MOV tell when each frame is
shown; Matroska tells it of key frames, and the frames between two of them are counted by the constant rate until they
are read. What is taken from an index is compared with packets: at the beginning, at the end, and in Matroska in some
stretches between. None, or FramesDifferError, leaves the file to the walk. Short files are walked: it costs no more.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from clipact.video.clip import FramesDifferError, KeyFrame, Timeline, shortfall
from clipact.video.media import Media
from clipact.video.sample_tables import SampleTables, read_sample_tables

# Walking 10,000 packets costs 40 ms, about what reading an index and checking it does.
LEAST_FRAMES = 10_000

# Of these each packet shows one frame, and a key frame is what its container calls one.
_CODECS = {"h264", "hevc", "vp9", "av1", "libdav1d", "libaom-av1", "mpeg4"}

_HEAD_PACKETS = 64
_TAIL_SHARE = 8  # the packets after the last key frame are at most one in 8 of all
_CHECKED_STRETCHES = 12  # of a Matroska file, besides those that are asked for
_MOST_REORDERED = 20  # packets; H.264 and HEVC allow 16

_DIFFERS = "its index does not hold"


def read_index(media: Media) -> Timeline | None:
    """The timeline as the index of the container has it; None where it is not trusted, or the file is short.

    Of a file with fewer than LEAST_FRAMES the packets are as soon read. Where the file is read next is undefined.
    """
    if media.context.name not in _CODECS:
        return None
    kind = media.format.split(",")[0]
    try:
        if kind == "mov":
            return _read_mp4(media)
        if kind == "matroska":
            return _read_matroska(media)
    except (FramesDifferError, OverflowError):  # a header may claim any time
        pass
    return None


def confirm(media: Media, timeline: Timeline, indices: Iterable[int]) -> Timeline:
    """The timeline with the frames between two key frames as the packets say, for those that hold `indices`.

    The same object when all of them were read before. FramesDifferError when there are more or fewer frames than the
    rate promised, or they are shown at other times.
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
            raise FramesDifferError(_DIFFERS)
        ticks[there] = found
    return replace(timeline, ticks=ticks, read_spans=known | spans)


# ------------------------------------------------------------------------------------------------------- MP4 and MOV


def _read_mp4(media: Media) -> Timeline | None:
    index = media.stream.index_entries
    count = len(index)
    if count < max(LEAST_FRAMES, 2) or not isinstance(media.place, str) or not media.place.startswith("file:"):
        return None
    tables = read_sample_tables(media.place.removeprefix("file:"), track_id=media.stream.id, samples=count)
    # B-frames without times of their own are the walk's affair.
    if tables is None or (media.context.has_b_frames and np.array_equal(tables.decoded_at, tables.shown_at)):
        return None
    if (np.diff(tables.decoded_at) < 0).any():
        return None
    last_key = int(tables.keys[-1])
    if count - last_key > max(count // _TAIL_SHARE, _HEAD_PACKETS):  # the end would be most of the walk
        return None
    shift, delay = _check_head(media, tables)
    _check_entries(index, tables, delay)
    last_ticks = _check_tail(media, tables, shift, delay)
    shown_at = tables.shown_at + shift
    ticks = np.sort(shown_at)
    if (np.diff(ticks) <= 0).any():
        return None
    key_ticks, key_decoded = shown_at[tables.keys].tolist(), (tables.decoded_at[tables.keys] + delay).tolist()
    keys = [KeyFrame(*three) for three in zip(key_ticks, key_decoded, tables.keys.tolist(), strict=True)]
    timeline = Timeline(
        ticks=ticks,
        time_base=media.time_base,
        last_ticks=last_ticks or int(np.median(np.diff(ticks))),
        keys=tuple(sorted(keys, key=lambda key: key.tick)),
    )
    return replace(timeline, notes=media.notes + shortfall(media, timeline, found=count))


def _check_head(media: Media, tables: SampleTables) -> tuple[int, int]:
    """How much later than its table each frame is shown, and decoded, by the first packets."""
    shift = delay = 0
    is_key = np.isin(np.arange(_HEAD_PACKETS), tables.keys)
    for at, packet in enumerate(_first(media.packets_from_start(), _HEAD_PACKETS)):
        if packet.pts is None or packet.dts is None or at >= len(tables.shown_at):
            raise FramesDifferError(_DIFFERS)
        here = packet.pts - int(tables.shown_at[at]), packet.dts - int(tables.decoded_at[at])
        if at == 0:
            shift, delay = here
        if here != (shift, delay) or packet.is_discard or packet.is_corrupt or is_key[at] > packet.is_keyframe:
            raise FramesDifferError(_DIFFERS)
    return shift, delay


def _check_entries(index: Any, tables: SampleTables, delay: int) -> None:
    """Compare FFmpeg's index, which its packets are read by, at key frames, at both ends, and now and then."""
    count = len(tables.decoded_at)
    ends = [*range(min(count, _HEAD_PACKETS)), *range(max(count - _HEAD_PACKETS, 0), count)]
    between = range(0, count, max(count // 4096, 1))
    keys = tables.keys[:: max(len(tables.keys) // 4096, 1)].tolist()
    key_set = set(tables.keys.tolist())
    for at in {*ends, *between, *keys}:
        entry = index[at]
        if (
            entry.timestamp != int(tables.decoded_at[at]) + delay
            or entry.is_discard
            or entry.is_keyframe != (at in key_set)
        ):
            raise FramesDifferError(_DIFFERS)


def _check_tail(media: Media, tables: SampleTables, shift: int, delay: int) -> int:
    """How long the last frame is shown; all packets from the last key frame on are read."""
    last_key = int(tables.keys[-1])
    expected = zip(
        (tables.shown_at[last_key:] + shift).tolist(), (tables.decoded_at[last_key:] + delay).tolist(), strict=True
    )
    key = KeyFrame(int(tables.shown_at[last_key]) + shift, int(tables.decoded_at[last_key]) + delay, last_key)
    latest, last_ticks = key.tick - 1, 0
    there = iter(_packets_from(media, key))
    for shown, decoded in expected:
        packet = next(there, None)
        if packet is None or (packet.pts, packet.dts) != (shown, decoded) or packet.is_discard or packet.is_corrupt:
            raise FramesDifferError(_DIFFERS)
        if shown > latest:
            latest, last_ticks = shown, packet.duration or 0
    if next(there, None) is not None or media.read_error:
        raise FramesDifferError(_DIFFERS)
    return last_ticks


# ---------------------------------------------------------------------------------------------------------- Matroska


def _read_matroska(media: Media) -> Timeline | None:
    _, whole = media.promised_seconds
    rates = [media.stream.average_rate, media.stream.base_rate, media.stream.guessed_rate]
    rates = list(dict.fromkeys(rate for rate in rates if rate))
    if not whole or not rates or whole * float(max(rates)) < LEAST_FRAMES:
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
    spread = np.interp(np.arange(places[-1]), places, key_ticks)
    ticks = np.concatenate([np.rint(spread).astype(np.int64), tail])
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


def _shown_between(media: Media, key: KeyFrame, after: KeyFrame | None, *, keep: list[Any] | None = None) -> np.ndarray:
    """When the frames from one key frame up to another (None: to the end) are shown, rising, from their packets."""
    found: list[int] = []
    left = _MOST_REORDERED
    for packet in _packets_from(media, key):
        if packet.pts is None or packet.is_discard or packet.is_corrupt:
            raise FramesDifferError(_DIFFERS)
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
        raise FramesDifferError(_DIFFERS)
    return np.sort(np.array(found, dtype=np.int64))


def _packets_from(media: Media, key: KeyFrame) -> Iterator[Any]:
    """The packets from the key frame on."""
    media.seek(key.tick)
    begun = False
    for packet in media.packets():
        begun = begun or packet.pts == key.tick
        if begun:
            yield packet
        elif packet.dts is not None and packet.dts > key.tick:
            break
    if not begun:
        raise FramesDifferError(_DIFFERS)


def _first(packets: Iterable[Any], count: int) -> Iterator[Any]:
    return (packet for _, packet in zip(range(count), packets, strict=False))
