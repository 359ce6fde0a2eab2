"""Build an index from a stream, add to it, remove from it; one writer at a time.

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
from clipact.label_index.faiss_build import build_faiss
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
from clipact.label_index.storage import BUILDING, MANIFEST, FileRecord, IndexFolder
from clipact.progress import ProgressBar, no_progress

EncodeEntries = Callable[[Sequence[IndexEntry]], Float32[np.ndarray, "n d"]]
"""Gives the unit vectors of entries, all at once."""

ENCODED_AT_ONCE = 1024
_SEGMENT_BYTES = 64 << 20


class SegmentWriter:
    """Write entries into segments; `manifest` has those on disk, which `flush` and each full segment add to."""

    def __init__(
        self,
        folder: IndexFolder,
        manifest: IndexManifest,
        encode: EncodeEntries,
        *,
        committed: Callable[[IndexManifest], None],
    ) -> None:
        self.folder, self.manifest, self._encode, self._committed = folder, manifest, encode, committed
        self._rows: IndexRows | None = None
        self._entries: list[IndexEntry] = []
        self._vectors: list[Float32[np.ndarray, "n d"]] = []
        self._segment = max(1, _SEGMENT_BYTES // manifest.metadata.row_bytes)
        self._progress = manifest.progress
        self._id_lookup = IdLookup()
        first = 0
        for segment in manifest.segments:
            keys, order = map_keys(folder, segment)
            self._id_lookup.extend(np.array(keys), order.astype(np.int64) + first)
            first += segment.rows

    def add(self, entry: IndexEntry) -> None:
        """Add an entry; one whose id and text are there already is counted.

        Raises:
            LabelIndexError: Its id has another text already.
        """
        progress = self._progress
        self._progress = replace(progress, taken=progress.taken + 1, digest=_extended(progress.digest, entry))
        key = id_key(entry.id)
        for row in self._id_lookup.rows(key):
            if (there := self._entry(row)) is not None and there.id == entry.id:
                if there.text != entry.text:
                    raise LabelIndexError(
                        f"the id {entry.id!r} stands for {there.text!r} and for {entry.text!r}: remove the first, or "
                        "give the second another id"
                    )
                self._progress = replace(self._progress, repeats=self._progress.repeats + 1)
                return
        self._id_lookup.add(key, self.manifest.rows + len(self._entries))
        self._entries.append(entry)
        if len(self._entries) - sum(map(len, self._vectors)) >= min(ENCODED_AT_ONCE, self._segment):
            self._encode_rest()
        if len(self._entries) >= self._segment:
            self.flush()

    def flush(self) -> IndexManifest:
        """Write what is waiting, and the manifest that names it."""
        if self._entries:
            self._encode_rest()
            vectors = np.concatenate(self._vectors)
            new = write_segment(self.folder, self._entries, vectors, metadata=self.manifest.metadata)
            self.manifest = replace(self.manifest, segments=(*self.manifest.segments, new))
            self._entries, self._vectors, self._rows = [], [], None
        self.manifest = replace(self.manifest, progress=self._progress)
        self._committed(self.manifest)
        return self.manifest

    def _encode_rest(self) -> None:
        fresh = self._entries[sum(map(len, self._vectors)) :]
        if not fresh:
            return
        vectors = self._encode(fresh)
        if vectors.shape != (len(fresh), self.manifest.metadata.dim):
            raise LabelIndexError(
                f"{len(fresh)} entries were encoded to {vectors.shape}; dim is {self.manifest.metadata.dim}"
            )
        if not np.allclose((vectors.astype(np.float64) ** 2).sum(1), 1, atol=1e-2):
            raise LabelIndexError("an index takes unit vectors; some of these are longer, shorter, or no numbers")
        self._vectors.append(vectors)

    def _entry(self, row: int) -> IndexEntry | None:
        """What a row stands for, None when it was removed."""
        written = self.manifest.rows
        if row >= written:
            return self._entries[row - written]
        self._rows = self._rows or IndexRows(self.folder, self.manifest)
        return None if self._rows.is_removed(row) else self._rows.entry(row)


def _extended(digest: str, entry: IndexEntry) -> str:
    """The hash over a stream, one entry further."""
    fields = [digest, entry.id, entry.text, dict(entry.metadata)]
    return blake2b(json.dumps(fields, ensure_ascii=False, default=str).encode(), digest_size=16).hexdigest()


def _merged(folder: IndexFolder, manifest: IndexManifest) -> IndexManifest:
    """Merge short segments at the end, so that a thousand small additions do not become a thousand files."""
    segments = list(manifest.segments)
    most = max(1, _SEGMENT_BYTES // (manifest.metadata.dim * 4))
    while len(segments) > 1 and segments[-2].rows <= 2 * segments[-1].rows:
        if segments[-2].rows + segments[-1].rows > most:
            break
        last = IndexRows(folder, replace(manifest, segments=tuple(segments[-2:]), removed=None))
        entries = [last.entry(row) for row in range(len(last))]
        vectors = last.vectors(np.arange(len(last)))
        segments[-2:] = [write_segment(folder, entries, vectors, metadata=manifest.metadata)]
    return replace(manifest, segments=tuple(segments))


@dataclass(frozen=True, kw_only=True)
class IndexChange:
    """Count what a change did: entries added, entries that were there already, entries removed."""

    added: int = 0
    repeats: int = 0
    removed: int = 0


def build_index(
    path: str | Path,
    entries: Iterable[IndexEntry],
    encode: EncodeEntries,
    *,
    metadata: IndexMetadata,
    plan: IndexPlan | None = None,
    resume: bool = False,
    progress: ProgressBar = no_progress,
) -> LabelIndex:
    """Build the index of a stream of entries in a folder, in place of the one that was there.

    Memory holds one segment (64 MB of vectors) and FAISS's part, whatever the stream's length.

    Args:
        path: The index's folder.
        entries: Read one at a time.
        encode: Gives the unit vectors of some entries.
        metadata: Which model made the vectors, and their form.
        plan: How neighbours are to be found.
        resume: Whether a stopped build is continued: the stream must begin as it did, and nothing is encoded twice.
        progress: Shows the entries, and then the blocks that FAISS adds.

    Raises:
        LabelIndexError: The folder holds something else, the stream is another, or an id stands for two texts.
        UsageError: The stream is empty.
    """
    folder = IndexFolder(path)
    if not folder.is_free():
        raise LabelIndexError(f"{path} is there and holds no index; name another place with --out")
    with folder.lock():
        manifest = _begun(folder, metadata, plan or IndexPlan(), resume=resume)
        folder.delete_unused([*_live_files(folder), *manifest.files])

        def keep(manifest: IndexManifest) -> None:
            folder.commit(to_table(manifest), BUILDING)

        writer = SegmentWriter(folder, manifest, encode, committed=keep)
        for entry in progress(_rest(entries, manifest, path), None, "encoding"):
            writer.add(entry)
        manifest = writer.flush()
        if not manifest.rows:
            raise UsageError("there is nothing to index: the source is empty")
        done = build_faiss(LabelIndex(folder, manifest), whole=True, progress=progress, keep=keep)
        folder.commit(to_table(done), MANIFEST)
        with suppress(OSError):
            os.unlink(folder.path / BUILDING)
        folder.delete_unused(done.files)
    return LabelIndex(folder, done)


def add_entries(
    path: str | Path,
    entries: Iterable[IndexEntry],
    encode: EncodeEntries,
    *,
    model_key: str,
    progress: ProgressBar = no_progress,
) -> IndexChange:
    """Add entries to an index, whole or not at all; those whose id and text are there already are counted.

    Few are compared one by one from then on; when they are many, FAISS's part is added to, never built anew.
    """
    folder = IndexFolder(path)
    LabelIndex.open(path, model_key=model_key)
    with folder.lock():
        before = _live(folder)
        folder.delete_unused(_unfinished_files(folder, before))
        writer = SegmentWriter(folder, replace(before, progress=BuildProgress()), encode, committed=lambda _: None)
        for entry in progress(entries, None, "encoding"):
            writer.add(entry)
        manifest = writer.flush()
        repeats, added = manifest.progress.repeats, manifest.rows - before.rows
        manifest = replace(_merged(folder, manifest), progress=before.progress)
        if added:
            _finish(folder, build_faiss(LabelIndex(folder, manifest), whole=False, progress=progress))
        return IndexChange(added=added, repeats=repeats)


def remove_entries(path: str | Path, ids: Sequence[str]) -> IndexChange:
    """Take entries out of every answer; LabelIndexError names the ids that are not there, and nothing is done then."""
    folder = IndexFolder(path)
    LabelIndex.open(path)
    with folder.lock():
        manifest = _live(folder)
        rows = IndexRows(folder, manifest)
        found = {id: rows.find(id) for id in ids}
        absent = [id for id, row in found.items() if row is None]
        if absent:
            more = f" and {len(absent) - 3:,} more" if len(absent) > 3 else ""
            raise LabelIndexError(f"{path} has no {', '.join(map(repr, absent[:3]))}{more}; nothing was removed")
        gone = np.array([row for row in found.values() if row is not None], dtype="<i8")
        removed = np.union1d(rows.removed, gone).astype("<i8")
        _finish(folder, replace(manifest, removed=folder.write("removed", [removed.tobytes()])))
        return IndexChange(removed=len(gone))


def _begun(folder: IndexFolder, metadata: IndexMetadata, plan: IndexPlan, *, resume: bool) -> IndexManifest:
    """What a stopped build has, or the manifest that a new one begins with."""
    kept = read_index_manifest(folder, BUILDING) if resume else None
    if kept is None:
        return IndexManifest(metadata=metadata, plan=plan)
    if replace(kept.metadata, model=metadata.model) != metadata:
        raise LabelIndexError(
            f"the build that was stopped in {folder.path} is of other vectors (model {kept.metadata.model}, "
            f"{kept.metadata.wording}, {kept.metadata.precision}): leave out --resume to begin anew"
        )
    folder.check(list(kept.files))
    return replace(kept, plan=plan)


def _rest(entries: Iterable[IndexEntry], manifest: IndexManifest, path: str | Path) -> Iterator[IndexEntry]:
    """The entries that a build has not taken; those that it has are compared with what it took."""
    done, digest = manifest.progress, ""
    number = 0
    for number, entry in enumerate(entries, 1):
        if number > done.taken:
            yield entry
        else:
            digest = _extended(digest, entry)
            if number == done.taken and digest != done.digest:
                raise LabelIndexError(_OTHER_STREAM.format(path=path, taken=done.taken))
    if number < done.taken:
        raise LabelIndexError(_OTHER_STREAM.format(path=path, taken=done.taken))


_OTHER_STREAM = (
    "the build that was stopped in {path} had taken {taken:,} entries, and this source does not begin with them: "
    "leave out --resume to begin anew"
)


def _finish(folder: IndexFolder, manifest: IndexManifest) -> None:
    folder.commit(to_table(manifest), MANIFEST)
    folder.delete_unused(_unfinished_files(folder, manifest))


def _live(folder: IndexFolder) -> IndexManifest:
    manifest = read_index_manifest(folder)
    assert manifest is not None  # it was opened just before, and manifests are never taken away
    return manifest


def _live_files(folder: IndexFolder) -> list[FileRecord]:
    try:
        manifest = read_index_manifest(folder)
    except LabelIndexError:  # it is about to be replaced
        return []
    return [] if manifest is None else list(manifest.files)


def _unfinished_files(folder: IndexFolder, manifest: IndexManifest) -> list[FileRecord]:
    """The manifest's files, and those of a build that could be gone on with."""
    try:
        building = read_index_manifest(folder, BUILDING)
    except LabelIndexError:
        building = None
    return [*manifest.files, *([] if building is None else building.files)]
