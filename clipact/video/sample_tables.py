"""Read when each sample of an MP4 or MOV track is decoded and shown, from the tables in its header.

FFmpeg keeps these tables, too, but PyAV hands out only the decoding times of them. What is read is some bytes a sample;
the compressed frames are not touched. Opens the file. Everything in the tables is checked against what FFmpeg's own
index and the packets say before it is used (`container_index.py`).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from jaxtyping import Int64

_MOST_TABLE_BYTES = 128 * 2**20  # of one table: 16 million runs
_MOST_BOXES = 10_000  # of one level


@dataclass(frozen=True, kw_only=True)
class SampleTables:
    """The samples of one track, in decoding order, times in ticks of the track and before its edit list.

    decoded_at  when each is decoded
    shown_at    when each is shown
    keys        numbers of the samples at which decoding may start
    """

    decoded_at: Int64[np.ndarray, " samples"]
    shown_at: Int64[np.ndarray, " samples"]
    keys: Int64[np.ndarray, " keys"]


class _UnusualError(Exception):
    """The file is built in a way that is not read here."""


def read_sample_tables(path: str, *, track_id: int, samples: int) -> SampleTables | None:
    """The tables of a track; None where the file is not of the plain kind.

    Plain means: whole to its last byte, no fragments, one decoder configuration, at most one edit after an empty one.

    Args:
        path: The file.
        track_id: The track, by the number in its header.
        samples: How many the track must have.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - the path is a string, as FFmpeg takes it
            return _read(file, track_id, samples)
    except (OSError, _UnusualError, struct.error, ValueError):
        return None


def _read(file: BinaryIO, track_id: int, samples: int) -> SampleTables:
    size = file.seek(0, 2)
    top = _boxes(file, 0, size)
    kinds = [kind for kind, _, _ in top]
    if b"moof" in kinds or kinds.count(b"moov") != 1:
        raise _UnusualError
    moov = _children(file, _only(top, b"moov"))
    if any(kind == b"mvex" for kind, _, _ in moov):
        raise _UnusualError
    for box in moov:
        if box[0] == b"trak":
            trak = _children(file, box)
            if _track_id(file, trak) == track_id:
                return _read_track(file, trak, samples)
    raise _UnusualError


def _read_track(file: BinaryIO, trak: "list[_Box]", samples: int) -> SampleTables:
    _check_edits(file, trak)
    table = _only(_children(file, _only(_children(file, _only(trak, b"mdia")), b"minf")), b"stbl")
    boxes = _children(file, table)
    if _numbers(file, _only(boxes, b"stsd"), limit_bytes=8)[1] != 1:
        raise _UnusualError
    steps = _spread(file, _only(boxes, b"stts"), samples)
    decoded_at = np.zeros(samples, np.int64)
    np.cumsum(steps[:-1], out=decoded_at[1:])
    kinds = {kind for kind, _, _ in boxes}
    shown_at = decoded_at + _spread(file, _only(boxes, b"ctts"), samples) if b"ctts" in kinds else decoded_at
    if b"stss" not in kinds:  # then every sample is one
        return SampleTables(decoded_at=decoded_at, shown_at=shown_at, keys=np.arange(samples))
    count, *numbers = _split(_numbers(file, _only(boxes, b"stss")))
    keys = numbers[0].astype(np.int64) - 1
    if len(keys) != count or not len(keys) or keys[0] != 0 or keys[-1] >= samples or (np.diff(keys) <= 0).any():
        raise _UnusualError
    return SampleTables(decoded_at=decoded_at, shown_at=shown_at, keys=keys)


_Box = tuple[bytes, int, int]  # its kind, and where what it holds begins and ends


def _boxes(file: BinaryIO, start: int, end: int) -> list[_Box]:
    """The boxes that fill a stretch of the file."""
    return list(_iterate_boxes(file, start, end))


def _iterate_boxes(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    for _ in range(_MOST_BOXES):
        if start == end:
            return
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            (size,), head = struct.unpack(">Q", file.read(8)), 16
        if size < head or start + size > end:  # 0, to the end of the file, says nothing about where that should be
            raise _UnusualError
        yield kind, start + head, start + size
        start += size
    raise _UnusualError


def _children(file: BinaryIO, box: _Box) -> list[_Box]:
    _, start, end = box
    return _boxes(file, start, end)


def _only(boxes: list[_Box], kind: bytes) -> _Box:
    found = [box for box in boxes if box[0] == kind]
    if len(found) != 1:
        raise _UnusualError
    return found[0]


def _numbers(file: BinaryIO, box: _Box, *, limit_bytes: int = _MOST_TABLE_BYTES) -> np.ndarray:
    """What the box holds, as numbers of 32 bits: version and flags, a count, and a table; or the first of them."""
    _, start, end = box
    length = min(end - start, limit_bytes) // 4 * 4
    if length < 8 or (end - start > _MOST_TABLE_BYTES):
        raise _UnusualError
    file.seek(start)
    return np.frombuffer(file.read(length), ">u4")


def _split(numbers: np.ndarray) -> tuple[int, np.ndarray]:
    """The count of a table, and the table."""
    return int(numbers[1]), numbers[2:]


def _spread(file: BinaryIO, box: _Box, samples: int) -> Int64[np.ndarray, " samples"]:
    """A number a sample, of a table of (how many samples, number)."""
    count, numbers = _split(_numbers(file, box))
    if len(numbers) < 2 * count:
        raise _UnusualError
    pairs = numbers[: 2 * count].reshape(count, 2)
    if int(pairs[:, 0].sum(dtype=np.int64)) != samples:
        raise _UnusualError
    # Offsets are signed whatever the version of the table says, as FFmpeg reads them.
    return np.repeat(pairs[:, 1].astype(np.uint32).view(np.int32).astype(np.int64), pairs[:, 0])


def _track_id(file: BinaryIO, trak: list[_Box]) -> int:
    _, start, _ = _only(trak, b"tkhd")
    file.seek(start)
    version = file.read(4)[0]
    file.seek(start + (20 if version == 1 else 12))
    return int(struct.unpack(">I", file.read(4))[0])


def _check_edits(file: BinaryIO, trak: list[_Box]) -> None:
    """Let pass what delays a track, and refuse what cuts, repeats or slows it down."""
    edits = [box for box in trak if box[0] == b"edts"]
    if not edits:
        return
    _, start, _ = _only(_children(file, edits[0]), b"elst")
    file.seek(start)
    version, count = struct.unpack(">B3xI", file.read(8))
    layout = ">QqI" if version == 1 else ">IiI"
    if count > 2:
        raise _UnusualError
    entries = [struct.unpack(layout, file.read(struct.calcsize(layout))) for _ in range(count)]
    shown = [(media_time, rate) for _, media_time, rate in entries if media_time != -1]
    if len(shown) > 1 or (shown and entries[-1][1] == -1) or any(rate != 1 << 16 for _, rate in shown):
        raise _UnusualError
