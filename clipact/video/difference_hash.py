"""The difference hash of a picture: 64 bits that stay nearly the same when it is scaled, or coded again.

Krawetz, "Kind of Like That", hackerfactor.com, 2013. Pictures whose hashes are near each other are taken for copies.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from clipact.errors import VideoError
from clipact.video.pictures import SUFFIXES, read_picture

NEAR = 6
"""At most so many of the 64 bits differ between copies."""
_BLOCK = 512  # rows whose distances to all others are in memory at a time


def difference_hash(picture: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "8"]:
    """Which pixels of the picture, reduced to 9 x 8 grey ones, are brighter than their left neighbour: eight bytes."""
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
