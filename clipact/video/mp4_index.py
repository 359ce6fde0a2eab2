"""Read the timeline of an MP4 or MOV file from its sample tables.

They tell when each frame is shown. What FFmpeg makes of them is compared with its index, with the first packets, and
with those after the last key frame. Files that are cut, edited, in fragments, or short are left to the walk.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from clipact.video.clip import FramesDifferError, KeyFrame, Timeline, shortfall
from clipact.video.index_check import INDEX_DIFFERS, packets_from
from clipact.video.media import Media
from clipact.video.sample_tables import SampleTables, read_sample_tables

_HEAD_PACKETS = 64
_TAIL_SHARE = 8  # the packets after the last key frame are at most one in 8 of all


def read_mp4_index(media: Media, *, least_frames: int) -> Timeline | None:
    """The timeline of an MP4 or MOV file with at least `least_frames`; FramesDifferError when the packets differ."""
    index = media.stream.index_entries
    count = len(index)
    if count < max(least_frames, 2) or not isinstance(media.place, str) or not media.place.startswith("file:"):
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
            raise FramesDifferError(INDEX_DIFFERS)
        here = packet.pts - int(tables.shown_at[at]), packet.dts - int(tables.decoded_at[at])
        if at == 0:
            shift, delay = here
        if here != (shift, delay) or packet.is_discard or packet.is_corrupt or is_key[at] > packet.is_keyframe:
            raise FramesDifferError(INDEX_DIFFERS)
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
            raise FramesDifferError(INDEX_DIFFERS)


def _check_tail(media: Media, tables: SampleTables, shift: int, delay: int) -> int:
    """How long the last frame is shown; all packets from the last key frame on are read."""
    last_key = int(tables.keys[-1])
    expected = zip(
        (tables.shown_at[last_key:] + shift).tolist(), (tables.decoded_at[last_key:] + delay).tolist(), strict=True
    )
    key = KeyFrame(int(tables.shown_at[last_key]) + shift, int(tables.decoded_at[last_key]) + delay, last_key)
    latest, last_ticks = key.tick - 1, 0
    there = iter(packets_from(media, key))
    for shown, decoded in expected:
        packet = next(there, None)
        if packet is None or (packet.pts, packet.dts) != (shown, decoded) or packet.is_discard or packet.is_corrupt:
            raise FramesDifferError(INDEX_DIFFERS)
        if shown > latest:
            latest, last_ticks = shown, packet.duration or 0
    if next(there, None) is not None or media.read_error:
        raise FramesDifferError(INDEX_DIFFERS)
    return last_ticks


def _first(packets: Iterable[Any], count: int) -> Iterator[Any]:
    return (packet for _, packet in zip(range(count), packets, strict=False))
