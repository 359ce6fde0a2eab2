"""Which ids have come by in a stream: 12 bytes for each, sorted runs that are joined when they are of like length."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64, UInt64


class Seen:
    """Keys of ids (`id_key`) and the rows that had them. A key can be had by several rows: the ids decide."""

    def __init__(self) -> None:
        self._runs: list[tuple[UInt64[np.ndarray, " n"], Int64[np.ndarray, " n"]]] = []
        self._recent: dict[int, list[int]] = {}

    def add(self, key: int, row: int) -> None:
        """Note that a row has this key."""
        self._recent.setdefault(key, []).append(row)
        if len(self._recent) >= 65_536:
            self.settle()

    def rows(self, key: int) -> Iterator[int]:
        """The rows that have this key."""
        yield from self._recent.get(key, ())
        for keys, rows in self._runs:
            at = int(np.searchsorted(keys, np.uint64(key)))
            while at < len(keys) and int(keys[at]) == key:
                yield int(rows[at])
                at += 1

    def settle(self) -> None:
        """Sort what came lately into a run."""
        pairs = [(key, row) for key, rows in self._recent.items() for row in rows]
        self._recent = {}
        if pairs:
            self.extend(np.array([key for key, _ in pairs], np.uint64), np.array([row for _, row in pairs], np.int64))

    def extend(self, keys: UInt64[np.ndarray, " n"], rows: Int64[np.ndarray, " n"]) -> None:
        """Note many at once."""
        order = np.argsort(keys, kind="stable")
        self._runs.append((keys[order], rows[order]))
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= 2 * len(self._runs[-1][0]):
            (one, own), (other, theirs) = self._runs.pop(), self._runs.pop()
            keys, rows = np.concatenate([other, one]), np.concatenate([theirs, own])
            order = np.argsort(keys, kind="stable")
            self._runs.append((keys[order], rows[order]))
