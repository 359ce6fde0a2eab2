"""The files of the cache: how many there are, how large, when they were last used, and which have to go.

Nothing but entries is ever looked at or removed: files that are called as entries are, in folders that are called as
theirs are, and what a killed process left of one. Symbolic links are not followed; what they lead to does not count.
"""

import os
import re
import time
from array import array
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clipact.atomic_write import PART_NAME

KINDS = {
    "clips": "features of clips, by video file and model",
    "frames": "features of single frames, by video file and model",
    "features": "features of earlier versions, which nothing reads",
    "sentences": "embeddings of sentences, by model",
    "sentence_names": "which sentences these are, as hashes",
    "text": "label embeddings of earlier versions, which nothing reads",
    "timelines": "when the frames of long videos are shown, by video file",
    "checked": "label indexes whose files were found whole",
}
"""What the cache holds, in words. A kind that is not here is none: its folder may be another program's."""

_FOLDER = re.compile(r"[0-9a-f]{2}")
_KEY = re.compile(r"[0-9a-f]{64}")
_BLOCK_BYTES = 4096
_LEFTOVER_SECONDS = 3600.0  # a file that is being written is younger
_SAMPLE_ENTRIES = 20_000


class CacheEntry(NamedTuple):
    """One file: `bytes` in whole blocks, as it takes them from the disk; `used_ns` is its modification time."""

    path: str
    bytes: int
    used_ns: int
    partial: bool


@dataclass(frozen=True, kw_only=True)
class KindUsage:
    """What the cache holds of one kind.

    kind                    a folder of the cache
    entries, bytes          whole entries
    oldest_use_seconds, newest_use_seconds  when an entry was last used, to the hour, in seconds since 1970; None when
                            there is no entry
    partial_files, partial_bytes  files that are being written, and those that killed processes left
    """

    kind: str
    entries: int = 0
    bytes: int = 0
    oldest_use_seconds: float | None = None
    newest_use_seconds: float | None = None
    partial_files: int = 0
    partial_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What was removed: whole entries, files that killed processes left, and the bytes of both."""

    entries: int = 0
    partial_files: int = 0
    bytes: int = 0


def size_on_disk(file_bytes: int) -> int:
    """Round a file's size up to whole blocks of 4,096 bytes, which is what most file systems keep files in."""
    return -(-file_bytes // _BLOCK_BYTES) * _BLOCK_BYTES


def iterate_entries(root: Path, kind: str) -> Iterator[CacheEntry]:
    """Yield the entries of one kind and its partial files; what vanishes or cannot be read meanwhile is left out."""
    for folder in _folders(root, kind):
        yield from _entries_of(folder)


def measure_kind(root: Path, kind: str) -> KindUsage:
    """Count what the cache holds of a kind."""
    entries = entry_bytes = partial_files = partial_bytes = 0
    oldest_ns = newest_ns = 0
    for entry in iterate_entries(root, kind):
        if entry.partial:
            partial_files, partial_bytes = partial_files + 1, partial_bytes + entry.bytes
            continue
        oldest_ns, newest_ns = min(oldest_ns or entry.used_ns, entry.used_ns), max(newest_ns, entry.used_ns)
        entries, entry_bytes = entries + 1, entry_bytes + entry.bytes
    return KindUsage(
        kind=kind,
        entries=entries,
        bytes=entry_bytes,
        oldest_use_seconds=oldest_ns / 1e9 if entries else None,
        newest_use_seconds=newest_ns / 1e9 if entries else None,
        partial_files=partial_files,
        partial_bytes=partial_bytes,
    )


def remove_entries(root: Path, kinds: Collection[str], older_than_seconds: float | None = None) -> Removed:
    """Remove entries of these kinds that were last used longer ago, and what killed processes left.

    Folders stay, since another process may be about to write into them.
    """
    now_ns = time.time_ns()
    entries = partial_files = freed = 0
    for kind in kinds:
        for entry in iterate_entries(root, kind):
            age_seconds = (now_ns - entry.used_ns) / 1e9
            if older_than_seconds is not None and age_seconds <= older_than_seconds:
                continue
            if (entry.partial and age_seconds < _LEFTOVER_SECONDS) or not _remove(entry):
                continue
            freed += entry.bytes
            entries, partial_files = entries + (not entry.partial), partial_files + entry.partial
    return Removed(entries=entries, partial_files=partial_files, bytes=freed)


def evict(root: Path, limit_bytes: int) -> None:
    """Remove the entries whose last use is longest ago where the cache is above its limit, until 90 % are left of it.

    Several processes may do so at once: each removes only what was last used before one moment, so that together they
    remove no more than the one that removes most.
    """
    used_ns, sizes = array("q"), array("q")  # 16 bytes an entry: a million of them are nothing
    total = 0
    for kind in KINDS:
        for entry in iterate_entries(root, kind):
            total += entry.bytes
            if not entry.partial:
                used_ns.append(entry.used_ns)
                sizes.append(entry.bytes)
    surplus = total - limit_bytes * 9 // 10
    if total <= limit_bytes or not sizes:
        return
    order = np.argsort(np.asarray(used_ns), kind="stable")
    freed = np.cumsum(np.asarray(sizes)[order])
    last = min(int(np.searchsorted(freed, surplus)), len(order) - 1)
    newest_ns = int(used_ns[order[last]])
    # Of those used at that very moment only as many go as are needed beside the older ones.
    older = int(np.searchsorted(np.asarray(used_ns)[order], newest_ns))
    surplus -= int(freed[older - 1]) if older else 0
    for kind in KINDS:
        for entry in iterate_entries(root, kind):
            if entry.partial:
                if time.time() - entry.used_ns / 1e9 > _LEFTOVER_SECONDS:
                    _remove(entry)
            elif entry.used_ns < newest_ns:
                _remove(entry)
            elif entry.used_ns == newest_ns and surplus > 0:
                surplus -= entry.bytes
                _remove(entry)


def estimate_bytes(root: Path) -> int:
    """Estimate the size of the cache from a part of its entries; exact where no kind has 20,000 of them.

    Keys are hashes, so that any folders of a kind are a fair sample of all: 200,000 entries of 0 to 9 kB were counted
    in 2.1 s, with the kernel's memory warm, and estimated within 1.2 % in 0.2 s. Disks and networks take far longer.
    """
    total = 0
    for kind in KINDS:
        folders = list(_folders(root, kind))
        begin = os.getpid() % max(1, len(folders))  # a few large entries are not overlooked by every process
        seen = sampled = done = 0
        for folder in folders[begin:] + folders[:begin]:
            done += 1
            for entry in _entries_of(folder):
                seen, sampled = seen + 1, sampled + entry.bytes
            if seen >= _SAMPLE_ENTRIES:
                break
        total += sampled * len(folders) // done if folders else 0
    return total


def _folders(root: Path, kind: str) -> Iterator[str]:
    above = root / kind
    if above.is_symlink():
        return
    with suppress(OSError), os.scandir(above) as found:
        for folder in found:
            if _FOLDER.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False):
                yield folder.path


def _entries_of(folder: str) -> Iterator[CacheEntry]:
    begins = os.path.basename(folder)  # noqa: PTH119 - a Path for each of a million is slow
    try:
        with os.scandir(folder) as found:
            files = list(found)
    except OSError:
        return
    for file in files:
        partial = PART_NAME.fullmatch(file.name) is not None
        if not partial and not (_KEY.fullmatch(file.name) and file.name.startswith(begins)):
            continue
        with suppress(OSError):  # gone meanwhile
            if file.is_file(follow_symlinks=False):
                stat = file.stat(follow_symlinks=False)
                yield CacheEntry(file.path, size_on_disk(stat.st_size), stat.st_mtime_ns, partial)


def _remove(entry: CacheEntry) -> bool:
    try:
        os.unlink(entry.path)
    except OSError:  # another process was faster, or it is not for us to remove
        return False
    return True
