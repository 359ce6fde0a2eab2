"""Entries from a stream become segments: a batch is encoded, a segment is written, and no id comes in twice."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b

import numpy as np
from jaxtyping import Float32

from clipact.errors import LabelIndexError
from clipact.label_index.entry import Entry, id_key
from clipact.label_index.files import Folder
from clipact.label_index.rows import Rows, map_keys, write_segment
from clipact.label_index.seen import Seen
from clipact.label_index.table import Progress, Table

Encode = Callable[[Sequence[Entry]], Float32[np.ndarray, "n d"]]
"""Gives the unit vectors of entries, all at once."""

ENCODED_AT_ONCE = 1024
_SEGMENT_BYTES = 64 << 20


class Appender:
    """Takes entries one by one; `table` says what is on disk so far, which `flush` and full segments move on."""

    def __init__(self, folder: Folder, table: Table, encode: Encode, *, committed: Callable[[Table], None]) -> None:
        self.folder, self.table, self._encode, self._committed = folder, table, encode, committed
        self._rows: Rows | None = None
        self._entries: list[Entry] = []
        self._vectors: list[Float32[np.ndarray, "n d"]] = []
        self._segment = max(1, _SEGMENT_BYTES // table.about.row_bytes)
        self._progress = table.progress
        self._seen = Seen()
        first = 0
        for segment in table.segments:
            keys, order = map_keys(folder, segment)
            self._seen.extend(np.array(keys), order.astype(np.int64) + first)
            first += segment.rows

    def take(self, entry: Entry) -> None:
        """Add an entry; one that says again what an earlier one says is counted.

        LabelIndexError when its id has another text already.
        """
        progress = self._progress
        self._progress = replace(progress, taken=progress.taken + 1, digest=chained(progress.digest, entry))
        key = id_key(entry.id)
        for row in self._seen.rows(key):
            if (there := self._entry(row)) is not None and there.id == entry.id:
                if there.text != entry.text:
                    raise LabelIndexError(
                        f"the id {entry.id!r} stands for {there.text!r} and for {entry.text!r}: remove the first, or "
                        "give the second another id"
                    )
                self._progress = replace(self._progress, repeats=self._progress.repeats + 1)
                return
        self._seen.add(key, self.table.rows + len(self._entries))
        self._entries.append(entry)
        if len(self._entries) - sum(map(len, self._vectors)) >= min(ENCODED_AT_ONCE, self._segment):
            self._encode_rest()
        if len(self._entries) >= self._segment:
            self.flush()

    def flush(self) -> Table:
        """Write what is waiting, and the table that names it."""
        if self._entries:
            self._encode_rest()
            vectors = np.concatenate(self._vectors)
            new = write_segment(self.folder, self._entries, vectors, about=self.table.about)
            self.table = replace(self.table, segments=(*self.table.segments, new))
            self._entries, self._vectors, self._rows = [], [], None
        self.table = replace(self.table, progress=self._progress)
        self._committed(self.table)
        return self.table

    def _encode_rest(self) -> None:
        fresh = self._entries[sum(map(len, self._vectors)) :]
        if not fresh:
            return
        vectors = self._encode(fresh)
        if vectors.shape != (len(fresh), self.table.about.dim):
            raise LabelIndexError(
                f"{len(fresh)} entries were encoded to {vectors.shape}; dim is {self.table.about.dim}"
            )
        if not np.allclose((vectors.astype(np.float64) ** 2).sum(1), 1, atol=1e-2):
            raise LabelIndexError("an index takes unit vectors; some of these are longer, shorter, or no numbers")
        self._vectors.append(vectors)

    def _entry(self, row: int) -> Entry | None:
        """What a row stands for, None when it was removed."""
        written = self.table.rows
        if row >= written:
            return self._entries[row - written]
        self._rows = self._rows or Rows(self.folder, self.table)
        return None if self._rows.is_removed(row) else self._rows.entry(row)


def chained(digest: str, entry: Entry) -> str:
    """The hash over a stream, one entry further."""
    fields = [digest, entry.id, entry.text, dict(entry.metadata)]
    return blake2b(json.dumps(fields, ensure_ascii=False, default=str).encode(), digest_size=16).hexdigest()


def joined(folder: Folder, table: Table) -> Table:
    """The table with short segments at its end made one, so that a thousand small additions are no thousand files."""
    segments = list(table.segments)
    most = max(1, _SEGMENT_BYTES // (table.about.dim * 4))
    while len(segments) > 1 and segments[-2].rows <= 2 * segments[-1].rows:
        if segments[-2].rows + segments[-1].rows > most:
            break
        last = Rows(folder, replace(table, segments=tuple(segments[-2:]), removed=None))
        entries = [last.entry(row) for row in range(len(last))]
        vectors = last.vectors(np.arange(len(last)))
        segments[-2:] = [write_segment(folder, entries, vectors, about=table.about)]
    return replace(table, segments=tuple(segments))


def fresh_progress(table: Table) -> Table:
    """The table as a stream that begins now finds it."""
    return replace(table, progress=Progress())
