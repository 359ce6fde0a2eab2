"""Files that protocol cards judge by, and those of them that are learnt from as well, by their bytes or their looks.

A picture that was scaled or coded again has other bytes; its difference hash stays nearly the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipact.data.card_lists import distinct, read_lists
from clipact.data.fingerprint import Fingerprint, Watch, take_fingerprints
from clipact.errors import DataError
from clipact.protocol import Card
from clipact.video.difference_hash import near_pairs


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A file that a card judges by; `name` is its place below the card's root."""

    card: str
    name: str
    fingerprint: Fingerprint


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A file, by its row, that is `of` or nearly so: `apart` of the 64 bits of their difference hashes differ."""

    row: int
    of: HeldOut
    apart: int
    same_bytes: bool


def read_held_out(card: Card, data: Path, *, watch: Watch = lambda taken, _: taken) -> list[HeldOut]:
    """All that the card judges by, below the folder `data`; DataError when it is not all there."""
    lists = read_lists(card, data)
    names = list(dict.fromkeys(sample.path for sample in distinct(lists)))
    prints = take_fingerprints([data / card.data.root / name for name in names], watch=watch)
    held = [HeldOut(card=card.name, name=name, fingerprint=one) for name, one in zip(names, prints, strict=True)]
    wrong = [cause for one in lists for cause in one.wrong]
    if missing := [one.name for one in held if not one.fingerprint.sha256]:
        wrong.append(f"{len(missing):,} of {len(held):,} files cannot be read, {missing[0]} among them")
    if wrong:
        raise DataError(f"the data in {data} are not those of card {card.name}: {'; '.join(wrong)}")
    return held


def find_copies(prints: Sequence[Fingerprint], held: Sequence[HeldOut]) -> list[Copy]:
    """Of each row and card the nearest file, where the two are the same or near each other; by row."""
    by_bytes: dict[str, list[HeldOut]] = {}
    for one in held:
        by_bytes.setdefault(one.fingerprint.sha256, []).append(one)
    copies = [
        Copy(row=row, of=one, apart=0, same_bytes=True)
        for row, taken in enumerate(prints)
        for one in by_bytes.get(taken.sha256, ())
    ]
    (rows, ours), (others, theirs) = _pictures(prints), _pictures(one.fingerprint for one in held)
    copies += [
        Copy(row=rows[row], of=held[others[other]], apart=apart, same_bytes=False)
        for row, other, apart in near_pairs(ours, theirs)
    ]
    nearest: dict[tuple[int, str], Copy] = {}
    for copy in sorted(copies, key=lambda copy: (copy.row, not copy.same_bytes, copy.apart)):
        nearest.setdefault((copy.row, copy.of.card), copy)
    return list(nearest.values())


def _pictures(prints: Iterable[Fingerprint]) -> tuple[list[int], np.ndarray]:
    """The rows that are pictures, and their difference hashes, eight bytes each."""
    hashes = {row: one.difference_hash for row, one in enumerate(prints) if one.difference_hash}
    table = np.frombuffer(bytes.fromhex("".join(hashes.values())), np.uint8).reshape(-1, 8)
    return list(hashes), table
