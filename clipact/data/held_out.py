"""Files that a protocol evaluates on, which are not to be learnt from: copies of them, and what is nearly one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipact.data.fingerprint import Fingerprint, near_pairs, take_fingerprints
from clipact.data.protocol import Protocol
from clipact.data.protocol_lists import distinct_samples, read_lists
from clipact.errors import DataError
from clipact.progress import ProgressBar, no_progress


@dataclass(frozen=True, kw_only=True)
class HeldOutFile:
    """A file that a protocol evaluates on; `name` is its place below the protocol's root."""

    protocol: str
    name: str
    fingerprint: Fingerprint


@dataclass(frozen=True, kw_only=True)
class NearDuplicate:
    """A file, by its row, that is `of` or nearly so: `apart` of the 64 bits of their difference hashes differ."""

    row: int
    of: HeldOutFile
    apart: int
    same_bytes: bool


def read_held_out(protocol: Protocol, data: Path, *, progress: ProgressBar = no_progress) -> list[HeldOutFile]:
    """Return all files that the protocol evaluates on, below the folder `data`; DataError when one is missing."""
    lists = read_lists(protocol, data)
    names = list(dict.fromkeys(sample.path for sample in distinct_samples(lists)))
    taken = take_fingerprints([data / protocol.data.root / name for name in names])
    prints = progress(taken, len(names), "reading")
    held = [
        HeldOutFile(protocol=protocol.name, name=name, fingerprint=one) for name, one in zip(names, prints, strict=True)
    ]
    wrong = [cause for one in lists for cause in one.wrong]
    if missing := [one.name for one in held if not one.fingerprint.sha256]:
        wrong.append(f"{len(missing):,} of {len(held):,} files cannot be read, {missing[0]} among them")
    if wrong:
        raise DataError(f"the data in {data} are not those of protocol {protocol.name}: {'; '.join(wrong)}")
    return held


def find_near_duplicates(prints: Sequence[Fingerprint], held: Sequence[HeldOutFile]) -> list[NearDuplicate]:
    """Of each row and protocol the nearest file, where the two are the same or near each other; by row."""
    by_bytes: dict[str, list[HeldOutFile]] = {}
    for one in held:
        by_bytes.setdefault(one.fingerprint.sha256, []).append(one)
    copies = [
        NearDuplicate(row=row, of=one, apart=0, same_bytes=True)
        for row, taken in enumerate(prints)
        for one in by_bytes.get(taken.sha256, ())
    ]
    (rows, ours), (others, theirs) = _pictures(prints), _pictures(one.fingerprint for one in held)
    copies += [
        NearDuplicate(row=rows[row], of=held[others[other]], apart=apart, same_bytes=False)
        for row, other, apart in near_pairs(ours, theirs)
    ]
    nearest: dict[tuple[int, str], NearDuplicate] = {}
    for copy in sorted(copies, key=lambda copy: (copy.row, not copy.same_bytes, copy.apart)):
        nearest.setdefault((copy.row, copy.of.protocol), copy)
    return list(nearest.values())


def _pictures(prints: Iterable[Fingerprint]) -> tuple[list[int], np.ndarray]:
    """The rows that are pictures, and their difference hashes, eight bytes each."""
    hashes = {row: one.difference_hash for row, one in enumerate(prints) if one.difference_hash}
    table = np.frombuffer(bytes.fromhex("".join(hashes.values())), np.uint8).reshape(-1, 8)
    return list(hashes), table
