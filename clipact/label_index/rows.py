"""Read the rows of an index: vectors, entries and ids of all segments, mapped into memory; write a segment."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, Int64, UInt64

from clipact.errors import LabelIndexError
from clipact.label_index.metadata import IndexEntry, IndexManifest, IndexMetadata, IndexSegment, id_key
from clipact.label_index.storage import IndexFolder


class IdLookup:
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


BLOCK_BYTES = 8 << 20  # of 32-bit vectors compared at once: more than this adds memory and no speed


class IndexRows:
    """What the data files that a manifest names hold. Row numbers run over all segments, removed rows included."""

    def __init__(self, folder: IndexFolder, manifest: IndexManifest) -> None:
        self.folder, self.manifest, self.dim = folder, manifest, manifest.metadata.dim
        self.starts = np.cumsum([0, *(segment.rows for segment in manifest.segments)])
        segments = manifest.segments
        self._vectors = [
            folder.memory_map(segment.vectors, manifest.metadata.dtype.str).reshape(-1, self.dim)
            for segment in segments
        ]
        self._offsets = [folder.memory_map(segment.offsets, "<i8") for segment in segments]
        self._entries = [folder.memory_map(segment.entries, "u1") for segment in segments]
        self._keys = [map_keys(folder, segment) for segment in segments]
        self.removed: Int64[np.ndarray, " m"] = (
            np.empty(0, np.int64) if manifest.removed is None else np.array(folder.memory_map(manifest.removed, "<i8"))
        )
        if len(self.removed) and not 0 <= self.removed.min() <= self.removed.max() < len(self):
            raise LabelIndexError(f"{folder.path} is damaged: it says that rows are removed which it has not")

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def alive(self) -> int:
        """How many rows count."""
        return len(self) - len(self.removed)

    def alive_mask(self) -> Bool[np.ndarray, " n"] | None:
        """Which rows count; None when all do."""
        if not len(self.removed):
            return None
        mask = np.ones(len(self), dtype=bool)
        mask[self.removed] = False
        return mask

    def blocks(self, *, start: int = 0) -> Iterator[tuple[int, Float[np.ndarray, "m d"]]]:
        """Yield the number of the first row and the vectors of blocks of rows, from `start` on, as they are kept."""
        for number, low, high in self.spans(start=start):
            yield int(self.starts[number]) + low, self._vectors[number][low:high]

    def spans(self, *, start: int = 0) -> Iterator[tuple[int, int, int]]:
        """Where those blocks are: a segment's number, and from where to where in it."""
        size = max(1, BLOCK_BYTES // (4 * self.dim))
        for number, segment in enumerate(self.manifest.segments):
            first = int(self.starts[number])
            for at in range(max(start - first, 0), segment.rows, size):
                yield number, at, min(at + size, segment.rows)

    def vectors(self, rows: Int64[np.ndarray, " m"]) -> Float32[np.ndarray, "m d"]:
        """The vectors of these rows, in their order."""
        found = np.empty((len(rows), self.dim), dtype=np.float32)
        segment = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(segment).tolist():
            own = segment == number
            found[own] = self._vectors[number][rows[own] - self.starts[number]]
        return found

    def entry(self, row: int) -> IndexEntry:
        """The entry of a row; LabelIndexError when it cannot be read."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        at = row - int(self.starts[number])
        low, high = self._offsets[number][at : at + 2].tolist()
        try:
            id, text, metadata = json.loads(bytes(self._entries[number][low:high]).decode())
            return IndexEntry(id=id, text=text, metadata=metadata)
        except (ValueError, TypeError) as error:
            raise LabelIndexError(f"{self.folder.path}: the entry of row {row} is damaged: {error}") from error

    def find(self, id: str) -> int | None:
        """The row of the entry with this id that counts; None when there is none."""
        key = np.uint64(id_key(id))
        for number in reversed(range(len(self._keys))):
            keys, order = self._keys[number]
            at = int(np.searchsorted(keys, key))
            while at < len(keys) and keys[at] == key:
                row = int(self.starts[number]) + int(order[at])
                if not self.is_removed(row) and self.entry(row).id == id:
                    return row
                at += 1
        return None

    def is_removed(self, row: int) -> bool:
        """Whether a row counts no longer."""
        at = int(np.searchsorted(self.removed, row))
        return at < len(self.removed) and int(self.removed[at]) == row


def map_keys(folder: IndexFolder, segment: IndexSegment) -> tuple[UInt64[np.ndarray, " n"], Int32[np.ndarray, " n"]]:
    """The sorted keys of a segment's ids, and the row within it that has each."""
    raw = folder.memory_map(segment.keys, "u1")
    return raw[: 8 * segment.rows].view("<u8"), raw[8 * segment.rows :].view("<i4")


def write_segment(
    folder: IndexFolder, entries: Sequence[IndexEntry], vectors: Float32[np.ndarray, "n d"], *, metadata: IndexMetadata
) -> IndexSegment:
    """The files of a segment of these entries, written."""
    lines = [_line(entry) for entry in entries]
    offsets = np.cumsum([0, *map(len, lines)], dtype="<i8")
    keys = np.array([id_key(entry.id) for entry in entries], dtype="<u8")
    order = np.argsort(keys, kind="stable").astype("<i4")
    numbers = np.ascontiguousarray(vectors, dtype=metadata.dtype)
    return IndexSegment(
        rows=len(entries),
        vectors=folder.write("vectors", [numbers.data.cast("B")]),
        entries=folder.write("entries", lines),
        offsets=folder.write("offsets", [offsets.tobytes()]),
        keys=folder.write("keys", [keys[order].tobytes(), order.tobytes()]),
    )


def _line(entry: IndexEntry) -> bytes:
    fields: list[Any] = [entry.id, entry.text, dict(entry.metadata)]
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise LabelIndexError(f"the entry {entry.id!r} cannot be kept as JSON: {error}") from error
