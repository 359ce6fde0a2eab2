"""What changes an index: building it from a stream, adding to it, removing from it. One writer at a time.

A build that is stopped or killed leaves the index that was there, and `building.json` to go on from. Adding and
removing happen whole or not at all; readers keep what they have open.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from clipact.config import to_table
from clipact.errors import LabelIndexError, UsageError
from clipact.label_index.faiss_build import Watch, build_faiss, unwatched
from clipact.label_index.index import LabelIndex
from clipact.label_index.metadata import (
    BuildProgress,
    IndexEntry,
    IndexManifest,
    IndexMetadata,
    IndexPlan,
    id_key,
    read_index_manifest,
)
from clipact.label_index.rows import IdLookup, IndexRows, map_keys, write_segment
from clipact.label_index.storage import BUILDING, TABLE, FileRecord, IndexFolder

EncodeEntries = Callable[[Sequence[IndexEntry]], Float32[np.ndarray, "n d"]]
"""Gives the unit vectors of entries, all at once."""

ENCODED_AT_ONCE = 1024
_SEGMENT_BYTES = 64 << 20


class SegmentWriter:
    """Takes entries one by one; `table` says what is on disk so far, which `flush` and full segments move on."""

    def __init__(
        self,
        folder: IndexFolder,
        table: IndexManifest,
        encode: EncodeEntries,
        *,
        committed: Callable[[IndexManifest], None],
    ) -> None:
        self.folder, self.table, self._encode, self._committed = folder, table, encode, committed
        self._rows: IndexRows | None = None
        self._entries: list[IndexEntry] = []
        self._vectors: list[Float32[np.ndarray, "n d"]] = []
        self._segment = max(1, _SEGMENT_BYTES // table.about.row_bytes)
        self._progress = table.progress
        self._seen = IdLookup()
        first = 0
        for segment in table.segments:
            keys, order = map_keys(folder, segment)
            self._seen.extend(np.array(keys), order.astype(np.int64) + first)
            first += segment.rows

    def take(self, entry: IndexEntry) -> None:
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

    def flush(self) -> IndexManifest:
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

    def _entry(self, row: int) -> IndexEntry | None:
        """What a row stands for, None when it was removed."""
        written = self.table.rows
        if row >= written:
            return self._entries[row - written]
        self._rows = self._rows or IndexRows(self.folder, self.table)
        return None if self._rows.is_removed(row) else self._rows.entry(row)


def chained(digest: str, entry: IndexEntry) -> str:
    """The hash over a stream, one entry further."""
    fields = [digest, entry.id, entry.text, dict(entry.metadata)]
    return blake2b(json.dumps(fields, ensure_ascii=False, default=str).encode(), digest_size=16).hexdigest()


def joined(folder: IndexFolder, table: IndexManifest) -> IndexManifest:
    """The table with short segments at its end made one, so that a thousand small additions are no thousand files."""
    segments = list(table.segments)
    most = max(1, _SEGMENT_BYTES // (table.about.dim * 4))
    while len(segments) > 1 and segments[-2].rows <= 2 * segments[-1].rows:
        if segments[-2].rows + segments[-1].rows > most:
            break
        last = IndexRows(folder, replace(table, segments=tuple(segments[-2:]), removed=None))
        entries = [last.entry(row) for row in range(len(last))]
        vectors = last.vectors(np.arange(len(last)))
        segments[-2:] = [write_segment(folder, entries, vectors, about=table.about)]
    return replace(table, segments=tuple(segments))


def fresh_progress(table: IndexManifest) -> IndexManifest:
    """The table as a stream that begins now finds it."""
    return replace(table, progress=BuildProgress())


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a change did: entries added, repeats that said nothing new, entries removed."""

    added: int = 0
    repeats: int = 0
    removed: int = 0


def build(
    path: str | Path,
    entries: Iterable[IndexEntry],
    encode: EncodeEntries,
    *,
    about: IndexMetadata,
    plan: IndexPlan | None = None,
    resume: bool = False,
    watch: Watch = unwatched,
) -> LabelIndex:
    """The index of a stream of entries, written to a folder in place of the one that was there.

    Memory holds one segment (64 MB of vectors) and FAISS's part, whatever the stream's length. With `resume` a build
    that was stopped is gone on with: the stream must begin as it did, and what was encoded is not encoded again.
    LabelIndexError when the folder holds something else, the stream is another, or an id stands for two texts.
    """
    folder = IndexFolder(path)
    if not folder.is_free():
        raise LabelIndexError(f"{path} is there and holds no index; name another place with --out")
    with folder.lock():
        table = _begun(folder, about, plan or IndexPlan(), resume=resume)
        folder.collect([*_live_files(folder), *table.files])

        def keep(table: IndexManifest) -> None:
            folder.commit(to_table(table), BUILDING)

        appender = SegmentWriter(folder, table, encode, committed=keep)
        for entry in watch(_rest(entries, table, path), None, "encoding"):
            appender.take(entry)
        table = appender.flush()
        if not table.rows:
            raise UsageError("there is nothing to index: the source is empty")
        done = build_faiss(LabelIndex(folder, table), whole=True, watch=watch, keep=keep)
        folder.commit(to_table(done), TABLE)
        with suppress(OSError):
            os.unlink(folder.path / BUILDING)
        folder.collect(done.files)
    return LabelIndex(folder, done)


def add(
    path: str | Path, entries: Iterable[IndexEntry], encode: EncodeEntries, *, model_key: str, watch: Watch = unwatched
) -> Change:
    """Add entries to an index, whole or not at all; those whose id and text are there already are counted.

    Few are compared one by one from then on; when they are many, FAISS's part is added to, never built anew.
    """
    folder = IndexFolder(path)
    LabelIndex.open(path, model_key=model_key)
    with folder.lock():
        before = _live(folder)
        folder.collect(_unfinished_files(folder, before))
        appender = SegmentWriter(folder, fresh_progress(before), encode, committed=lambda _: None)
        for entry in watch(entries, None, "encoding"):
            appender.take(entry)
        table = appender.flush()
        repeats, added = table.progress.repeats, table.rows - before.rows
        table = replace(joined(folder, table), progress=before.progress)
        if added:
            _finish(folder, build_faiss(LabelIndex(folder, table), whole=False, watch=watch))
        return Change(added=added, repeats=repeats)


def remove(path: str | Path, ids: Sequence[str]) -> Change:
    """Take entries out of every answer; LabelIndexError names the ids that are not there, and nothing is done then."""
    folder = IndexFolder(path)
    LabelIndex.open(path)
    with folder.lock():
        table = _live(folder)
        rows = IndexRows(folder, table)
        found = {id: rows.find(id) for id in ids}
        absent = [id for id, row in found.items() if row is None]
        if absent:
            more = f" and {len(absent) - 3:,} more" if len(absent) > 3 else ""
            raise LabelIndexError(f"{path} has no {', '.join(map(repr, absent[:3]))}{more}; nothing was removed")
        gone = np.array([row for row in found.values() if row is not None], dtype="<i8")
        removed = np.union1d(rows.removed, gone).astype("<i8")
        _finish(folder, replace(table, removed=folder.write("removed", [removed.tobytes()])))
        return Change(removed=len(gone))


def _begun(folder: IndexFolder, about: IndexMetadata, plan: IndexPlan, *, resume: bool) -> IndexManifest:
    """What a stopped build has, or the table that a new one begins with."""
    kept = read_index_manifest(folder, BUILDING) if resume else None
    if kept is None:
        return IndexManifest(about=about, plan=plan)
    if replace(kept.about, model=about.model) != about:
        raise LabelIndexError(
            f"the build that was stopped in {folder.path} is of other vectors (model {kept.about.model}, "
            f"{kept.about.wording}, {kept.about.precision}): leave out --resume to begin anew"
        )
    folder.check(list(kept.files))
    return replace(kept, plan=plan)


def _rest(entries: Iterable[IndexEntry], table: IndexManifest, path: str | Path) -> Iterator[IndexEntry]:
    """The entries that a build has not taken; those that it has are compared with what it took."""
    done, digest = table.progress, ""
    number = 0
    for number, entry in enumerate(entries, 1):
        if number > done.taken:
            yield entry
        else:
            digest = chained(digest, entry)
            if number == done.taken and digest != done.digest:
                raise LabelIndexError(_OTHER_STREAM.format(path=path, taken=done.taken))
    if number < done.taken:
        raise LabelIndexError(_OTHER_STREAM.format(path=path, taken=done.taken))


_OTHER_STREAM = (
    "the build that was stopped in {path} had taken {taken:,} entries, and this source does not begin with them: "
    "leave out --resume to begin anew"
)


def _finish(folder: IndexFolder, table: IndexManifest) -> None:
    folder.commit(to_table(table), TABLE)
    folder.collect(_unfinished_files(folder, table))


def _live(folder: IndexFolder) -> IndexManifest:
    table = read_index_manifest(folder)
    assert table is not None  # it was opened just before, and tables are never taken away
    return table


def _live_files(folder: IndexFolder) -> list[FileRecord]:
    try:
        table = read_index_manifest(folder)
    except LabelIndexError:  # it is about to be replaced
        return []
    return [] if table is None else list(table.files)


def _unfinished_files(folder: IndexFolder, table: IndexManifest) -> list[FileRecord]:
    """The table's files, and those of a build that could be gone on with."""
    try:
        building = read_index_manifest(folder, BUILDING)
    except LabelIndexError:
        building = None
    return [*table.files, *([] if building is None else building.files)]
