"""Which sample stands where in a run that never ends: arithmetic on numbers, and nothing else.

A run is one stream: the first epoch in its random order, then the second, and so on. A batch is a stretch of the
stream, so that it may be larger than the data, and a step's number alone says what is in it.
"""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Place(NamedTuple):
    """One sample's turn: which epoch it is, and which entry of the data."""

    epoch: int
    entry: int


def seed_from(*parts: int | str) -> int:
    """A seed of 63 bits that depends on every part, the same on every machine; also a stable id for a text."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Stream:
    """The endless order of `count` samples: each epoch is a new permutation, or always 0..count-1 unshuffled."""

    def __init__(self, count: int, *, seed: int, shuffled: bool = True) -> None:
        assert count > 0
        self.count, self.seed, self.shuffled = count, seed, shuffled
        self._order = lru_cache(maxsize=2)(self._permute)

    def stretch(self, start: int, stop: int) -> Iterator[Place]:
        """Whose turn it is from place `start` on, up to and without `stop`."""
        for place in range(start, stop):
            epoch, within = divmod(place, self.count)
            yield Place(epoch, int(self._order(epoch)[within]))

    def _permute(self, epoch: int) -> np.ndarray:
        if not self.shuffled:
            return np.arange(self.count)
        return np.random.default_rng(seed_from(self.seed, "order", epoch)).permutation(self.count)
