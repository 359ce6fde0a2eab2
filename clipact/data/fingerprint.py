"""Fingerprints of files: a hash of the bytes, and a difference hash that near copies of a picture share."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from clipact.errors import VideoError
from clipact.file_memo import FileMemo
from clipact.video.open_source import FILE, VideoSource, source_kind
from clipact.video.picture_file import SUFFIXES, read_picture

NEAR = 6
"""At most so many of the 64 bits differ between copies."""
_BLOCK = 512  # rows whose distances to all others are in memory at a time


def difference_hash(picture: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "8"]:
    """Which pixels of the picture, reduced to 9 x 8 grey ones, are brighter than their left neighbour: eight bytes."""
    # Not imagehash.dhash (4.3.2), which gives the same bits of 1,500 photographs in the same time: it is 45 MB to
    # download with SciPy and PyWavelets, for these three lines.
    small = Image.fromarray(picture).convert("L").resize((9, 8), Image.Resampling.LANCZOS)
    grey = np.asarray(small, dtype=np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1])


def hash_picture(path: Path) -> str:
    """The difference hash of a picture file in hex digits; "" for what is no picture by its name, or cannot be read."""
    if path.suffix.lower() not in SUFFIXES:
        return ""
    try:
        return difference_hash(read_picture(path)).tobytes().hex()
    except VideoError:
        return ""


def near_pairs(
    ours: UInt8[np.ndarray, "n 8"], theirs: UInt8[np.ndarray, "m 8"], *, near: int = NEAR
) -> Iterator[tuple[int, int, int]]:
    """Row numbers of the hashes that differ in at most `near` bits, and in how many, by the first number."""
    bits, others = (np.unpackbits(hashes, axis=1).astype(np.float32) for hashes in (ours, theirs))
    for start in range(0, len(bits), _BLOCK):
        block = bits[start : start + _BLOCK]
        apart = block.sum(1)[:, None] + others.sum(1)[None] - 2 * block @ others.T
        for row, other in zip(*np.nonzero(apart <= near), strict=True):
            yield start + int(row), int(other), int(apart[row, other])


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Of one file; both are hex digits.

    sha256           of its bytes; "" when it cannot be read
    difference_hash  of the picture in it, as `difference_hash` gives it; "" when there is none
    """

    sha256: str
    difference_hash: str


def take_fingerprint(path: Path) -> Fingerprint:
    """Return the fingerprint of one file."""
    return Fingerprint(sha256=file_digest(path), difference_hash=hash_picture(path))


def take_fingerprints(paths: Sequence[Path]) -> Iterator[Fingerprint]:
    """Yield the fingerprint of each file, in order."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(take_fingerprint, paths)


_DIGESTS: FileMemo[str] = FileMemo(limit=100_000)  # files; about 30 MB


def file_digest(path: str | Path) -> str:
    """The hex sha256 of a file's bytes, "" when it cannot be read, or is no regular file: decoding it says why.

    A file is read once in a process, for as long as it is not changed: a table may name it in many rows.
    """
    try:
        return _DIGESTS.recall(path, lambda: _digest(Path(path)))
    except (OSError, ValueError):  # a name may hold a NUL
        return ""


def source_digest(source: VideoSource) -> str:
    """The hex sha256 of a source that is a file, "" of any other: standard input is not the file called "-"."""
    return file_digest(source) if isinstance(source, str | Path) and source_kind(source) == FILE else ""


def _digest(path: Path) -> str:
    if not path.is_file():  # opening a pipe waits for who writes to it, and a device may have no end
        raise OSError(f"{path} is no regular file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seed_from(*parts: int | str) -> int:
    """A seed of 63 bits that depends on every part, the same on every machine; also a stable id for a text."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
