"""What is the same file or the same picture, whatever it is called: by its bytes, and by what it looks like."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from clipact.video.difference_hash import hash_picture


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Of one file; both are hex digits.

    sha256           of its bytes; "" when it cannot be read
    difference_hash  of the picture in it (clipact.video.difference_hash); "" when there is none
    """

    sha256: str
    difference_hash: str


Watch = Callable[[Iterable[Fingerprint], int], Iterable[Fingerprint]]
"""A progress bar around them, told how many there are."""


def take_fingerprint(path: Path) -> Fingerprint:
    """That of one file."""
    return Fingerprint(sha256=file_digest(path), difference_hash=hash_picture(path))


def take_fingerprints(paths: Sequence[Path], *, watch: Watch = lambda taken, _: taken) -> list[Fingerprint]:
    """One a file, in order."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(watch(pool.map(take_fingerprint, paths), len(paths)))


def file_digest(path: str | Path) -> str:
    """The hex sha256 of a file's bytes, "" when it cannot be read: decoding it says why."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
