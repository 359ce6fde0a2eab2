"""Remember the timelines of files: each is read once in a process, and long ones are kept in the cache on disk.

The key on disk has the file's size, its modification time, and the hash of 34 parts of it (its beginning, its end, and
blocks between): hashing all of a film would read what the timeline saves. A copy that keeps its time stamp is found, a
file that was changed is not. What is decoded is checked against the timeline besides.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from clipact.cache import Cache, content_key
from clipact.errors import CacheError
from clipact.file_memo import FileIdentity, FileMemo, is_still
from clipact.video.clip import FramesDifferError, KeyFrame, Timeline

_KIND = "timelines"
_VERSION = "timeline 1"  # another one when the same file is to give another timeline

LEAST_BYTES = 4 * 2**20  # of a file whose timeline may be on disk
_LEAST_FRAMES = 20_000  # walking so many packets costs 80 ms, an entry 1 ms; decoding them far more

_END_BYTES = 64 * 2**10
_BLOCK_BYTES = 4096
_BLOCKS = 32


def _size_bytes(known: Timeline | str | None) -> int:
    return known.size_bytes if isinstance(known, Timeline) else 64


# By the file and the way of reading it: the timeline, None, or why its frames must be had in another way.
_TIMELINES: FileMemo[Timeline | str | None] = FileMemo(limit=64 * 2**20, size=_size_bytes)


def recall_timeline(
    read: Callable[[], Timeline | None], identity: FileIdentity | None, *, way: str, on_disk: bool = False
) -> Timeline | None:
    """The timeline that `read` makes; of a file it is made once in a process, for as long as the file is not changed.

    Args:
        read: Makes it; None where there is no such way of reading the file.
        identity: Of the file, from before it was opened; None of other sources.
        way: What tells this way of reading a file from others.
        on_disk: Whether a long one is looked up, and kept, in the cache on disk.

    Raises:
        FramesDifferError: As `read` did, now or before.
    """

    def read_or_reason() -> Timeline | str | None:
        try:
            return _recall_from_disk(read, identity, way) if on_disk and identity is not None else read()
        except FramesDifferError as difference:
            return str(difference)

    known = read_or_reason() if identity is None else _TIMELINES.recall(identity, read_or_reason, about=way)
    if isinstance(known, str):
        raise FramesDifferError(known)
    return known


def _recall_from_disk(read: Callable[[], Timeline | None], identity: FileIdentity, way: str) -> Timeline | None:
    """The timeline from the cache on disk, else read and, where it is long, kept there."""
    if identity.size_bytes < LEAST_BYTES:
        return read()
    cache, key = Cache(), _key(identity, way)
    if key and (kept := cache.read(_KIND, key)) is not None and (timeline := _unpack(kept)) is not None:
        return timeline
    timeline = read()
    if key and timeline is not None and len(timeline) >= _LEAST_FRAMES and identity.settled and is_still(identity):
        with suppress(CacheError):  # a full disk is no reason to lose what was read
            cache.write(_KIND, key, _pack(timeline))
    return timeline


def _key(identity: FileIdentity, way: str) -> str | None:
    """What the entry is called; None when the file cannot be read."""
    digest = hashlib.sha256()
    last = max(identity.size_bytes - _END_BYTES, 0)
    between = np.linspace(0, last, _BLOCKS + 2, dtype=np.int64)[1:-1].tolist()
    try:
        with Path(identity.path).open("rb", buffering=0) as file:
            for start in (0, *between, last):
                file.seek(start)
                digest.update(file.read(_BLOCK_BYTES if start in between else _END_BYTES))
    except OSError:
        return None
    facts = (str(identity.size_bytes), str(identity.modified_ns))
    return content_key(_VERSION, av.__version__, way, *facts, digest.digest())


def _pack(timeline: Timeline) -> dict[str, np.ndarray]:
    facts = {
        "time_base": [timeline.time_base.numerator, timeline.time_base.denominator],
        "last_ticks": timeline.last_ticks,
        "notes": timeline.notes,
    }
    keys = np.array([(key.tick, key.seek_tick, key.position) for key in timeline.keys], np.int64).reshape(-1, 3)
    return {"ticks": timeline.ticks, "keys": keys, "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)}


def _unpack(kept: dict[str, np.ndarray]) -> Timeline | None:
    """The timeline; None when the entry holds something else."""
    try:
        facts = json.loads(kept["facts"].tobytes())
        return Timeline(
            ticks=kept["ticks"],
            time_base=Fraction(*facts["time_base"]),
            last_ticks=int(facts["last_ticks"]),
            keys=tuple(KeyFrame(*three) for three in kept["keys"].tolist()),
            notes=tuple(facts["notes"]),
        )
    except (KeyError, TypeError, ValueError, AssertionError):
        return None
