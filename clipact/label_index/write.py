"""What changes an index: building it from a stream, adding to it, removing from it. One writer at a time.

A build that is stopped or killed leaves the index that was there, and `building.json` to go on from. Adding and
removing happen whole or not at all; readers keep what they have open.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clipact.config import to_table
from clipact.errors import LabelIndexError, UsageError
from clipact.label_index.appender import Appender, Encode, chained, fresh_progress, joined
from clipact.label_index.entry import Entry
from clipact.label_index.files import BUILDING, TABLE, FileRecord, Folder
from clipact.label_index.grow import Watch, grow, unwatched
from clipact.label_index.index import LabelIndex
from clipact.label_index.rows import Rows
from clipact.label_index.table import About, Plan, Table, read_table


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a change did: entries added, repeats that said nothing new, entries removed."""

    added: int = 0
    repeats: int = 0
    removed: int = 0


def build(
    path: str | Path,
    entries: Iterable[Entry],
    encode: Encode,
    *,
    about: About,
    plan: Plan | None = None,
    resume: bool = False,
    watch: Watch = unwatched,
) -> LabelIndex:
    """The index of a stream of entries, written to a folder in place of the one that was there.

    Memory holds one segment (64 MB of vectors) and FAISS's part, whatever the stream's length. With `resume` a build
    that was stopped is gone on with: the stream must begin as it did, and what was encoded is not encoded again.
    LabelIndexError when the folder holds something else, the stream is another, or an id stands for two texts.
    """
    folder = Folder(path)
    if not folder.is_free():
        raise LabelIndexError(f"{path} is there and holds no index; name another place with --out")
    with folder.lock():
        table = _begun(folder, about, plan or Plan(), resume=resume)
        folder.collect([*_live_files(folder), *table.files])

        def keep(table: Table) -> None:
            folder.commit(to_table(table), BUILDING)

        appender = Appender(folder, table, encode, committed=keep)
        for entry in watch(_rest(entries, table, path), None, "encoding"):
            appender.take(entry)
        table = appender.flush()
        if not table.rows:
            raise UsageError("there is nothing to index: the source is empty")
        done = grow(LabelIndex(folder, table), whole=True, watch=watch, keep=keep)
        folder.commit(to_table(done), TABLE)
        with suppress(OSError):
            os.unlink(folder.path / BUILDING)
        folder.collect(done.files)
    return LabelIndex(folder, done)


def add(
    path: str | Path, entries: Iterable[Entry], encode: Encode, *, model_key: str, watch: Watch = unwatched
) -> Change:
    """Add entries to an index, whole or not at all; those whose id and text are there already are counted.

    Few are compared one by one from then on; when they are many, FAISS's part is added to, never built anew.
    """
    folder = Folder(path)
    LabelIndex.open(path, model_key=model_key)
    with folder.lock():
        before = _live(folder)
        folder.collect(_unfinished_files(folder, before))
        appender = Appender(folder, fresh_progress(before), encode, committed=lambda _: None)
        for entry in watch(entries, None, "encoding"):
            appender.take(entry)
        table = appender.flush()
        repeats, added = table.progress.repeats, table.rows - before.rows
        table = replace(joined(folder, table), progress=before.progress)
        if added:
            _finish(folder, grow(LabelIndex(folder, table), whole=False, watch=watch))
        return Change(added=added, repeats=repeats)


def remove(path: str | Path, ids: Sequence[str]) -> Change:
    """Take entries out of every answer; LabelIndexError names the ids that are not there, and nothing is done then."""
    folder = Folder(path)
    LabelIndex.open(path)
    with folder.lock():
        table = _live(folder)
        rows = Rows(folder, table)
        found = {id: rows.find(id) for id in ids}
        absent = [id for id, row in found.items() if row is None]
        if absent:
            more = f" and {len(absent) - 3:,} more" if len(absent) > 3 else ""
            raise LabelIndexError(f"{path} has no {', '.join(map(repr, absent[:3]))}{more}; nothing was removed")
        gone = np.array([row for row in found.values() if row is not None], dtype="<i8")
        removed = np.union1d(rows.removed, gone).astype("<i8")
        _finish(folder, replace(table, removed=folder.write("removed", [removed.tobytes()])))
        return Change(removed=len(gone))


def _begun(folder: Folder, about: About, plan: Plan, *, resume: bool) -> Table:
    """What a stopped build has, or the table that a new one begins with."""
    kept = read_table(folder, BUILDING) if resume else None
    if kept is None:
        return Table(about=about, plan=plan)
    if replace(kept.about, model=about.model) != about:
        raise LabelIndexError(
            f"the build that was stopped in {folder.path} is of other vectors (model {kept.about.model}, "
            f"{kept.about.wording}, {kept.about.precision}): leave out --resume to begin anew"
        )
    folder.check(list(kept.files))
    return replace(kept, plan=plan)


def _rest(entries: Iterable[Entry], table: Table, path: str | Path) -> Iterator[Entry]:
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


def _finish(folder: Folder, table: Table) -> None:
    folder.commit(to_table(table), TABLE)
    folder.collect(_unfinished_files(folder, table))


def _live(folder: Folder) -> Table:
    table = read_table(folder)
    assert table is not None  # it was opened just before, and tables are never taken away
    return table


def _live_files(folder: Folder) -> list[FileRecord]:
    try:
        table = read_table(folder)
    except LabelIndexError:  # it is about to be replaced
        return []
    return [] if table is None else list(table.files)


def _unfinished_files(folder: Folder, table: Table) -> list[FileRecord]:
    """The table's files, and those of a build that could be gone on with."""
    try:
        building = read_table(folder, BUILDING)
    except LabelIndexError:
        building = None
    return [*table.files, *([] if building is None else building.files)]
