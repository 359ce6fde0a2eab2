"""Read files of embeddings: by path and part, or one after the other, with memory for a few row groups.

Only files that `FeatureWriter` wrote are taken: without their metadata nobody knows what an embedding stands for.
"""

import os
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from clipact.embed.feature_row import METADATA_KEY, FeatureMetadata, FeatureRow, as_text, schema_of
from clipact.errors import FeatureFileError, UsageError, import_library

_GROUPS_HELD = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class _Index:
    """Where each video or part begins, and their numbers in the order of their hashes: 24 bytes each."""

    first_rows: Int64[np.ndarray, " n"]
    hashes: Int64[np.ndarray, " n"]
    numbers: Int64[np.ndarray, " n"]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Group:
    """One row group in memory."""

    columns: dict[str, list[Any]]
    embeddings: Float32[np.ndarray, "r d"]


class FeatureFile:
    """A file of embeddings, open for reading by one thread.

    Args:
        path: The Parquet file.

    Raises:
        FeatureFileError: It is not there, not Parquet, or not written by clipact.
        MissingLibraryError: pyarrow is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._arrow, parquet = import_library("pyarrow"), import_library("pyarrow.parquet")
        try:
            self._file = parquet.ParquetFile(self.path, page_checksum_verification=True)
        except FileNotFoundError:
            raise FeatureFileError(f"{self.path}: no such file; `clipact embed` writes one") from None
        except (OSError, self._arrow.ArrowException) as error:
            raise FeatureFileError(f"{self.path} cannot be read as Parquet: {_first_line(error)}") from error
        try:
            self.metadata = self._check_schema()
        except BaseException:
            self.close()
            raise
        rows = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._group_ends = np.cumsum(rows, dtype=np.int64)
        self._groups: OrderedDict[int, _Group] = OrderedDict()
        self._index: _Index | None = None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "FeatureFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._indexed().first_rows)

    def __iter__(self) -> Iterator[FeatureRow]:
        """Yield what was written, in order.

        Raises:
            FeatureFileError: The file is damaged.
        """
        return (self._read(number) for number in range(len(self)))

    def find(
        self, path: str, start_seconds: float | None = None, end_seconds: float | None = None
    ) -> FeatureRow | None:
        """Return the first row of this path and part, None when there is none.

        A start of None is one of 0, as for any part of a video.

        Raises:
            FeatureFileError: The file is damaged.
        """
        index, wanted = self._indexed(), _key(as_text(path), start_seconds, end_seconds)
        first, end = (int(np.searchsorted(index.hashes, hash(wanted), side=side)) for side in ("left", "right"))
        for number in index.numbers[first:end]:
            row = self._read(int(number))
            if _key(row.path, row.start_seconds, row.end_seconds) == wanted:
                return row
        return None

    def _check_schema(self) -> FeatureMetadata:
        schema = self._file.schema_arrow
        raw = (schema.metadata or {}).get(METADATA_KEY)
        if raw is None:
            raise FeatureFileError(
                f"{self.path} was not written by clipact: it has no metadata {METADATA_KEY.decode()!r}, which say "
                "which model and which frames its embeddings are of. Programs that rewrite Parquet may drop them"
            )
        metadata = FeatureMetadata.from_json(raw, name=str(self.path))
        wanted = schema_of(metadata)
        missing = [
            f"{field.name} ({field.type})"
            for field in wanted
            if field.name not in schema.names or not self._is_like(schema.field(field.name).type, field.type)
        ]
        if missing:
            raise FeatureFileError(f"{self.path} lacks columns, or has them of another type: {', '.join(missing)}")
        return metadata

    def _is_like(self, ours: Any, wanted: Any) -> bool:
        """Whether a column can be read as one of this type; other programs rewrite fixed-size lists as lists."""
        types = self._arrow.types
        if types.is_fixed_size_list(wanted) and (types.is_list(ours) or types.is_large_list(ours)):
            return bool(ours.value_type == wanted.value_type)
        return bool(ours == wanted)

    def _indexed(self) -> _Index:
        if self._index is None:
            first_rows, hashes = array("q"), array("q")
            before: tuple[tuple[str, float, float | None], list[int | None]] | None = None
            columns = ["path", "start_seconds", "end_seconds", *(["frame"] if self.metadata.per_frame else [])]
            row = 0
            for group in range(self._file.num_row_groups):
                table = self._read_group(group, columns)
                for path, start, end, *frame in zip(*(table.column(name).to_pylist() for name in columns), strict=True):
                    key = _key(path, start, end)
                    if before is None or before[0] != key or not _follows(frame, before[1]):
                        first_rows.append(row)
                        hashes.append(hash(key))
                    before = key, frame
                    row += 1
            unordered = np.array(hashes, np.int64)
            numbers = np.argsort(unordered, kind="stable")  # of several with one key the first is found
            self._index = _Index(first_rows=np.array(first_rows, np.int64), hashes=unordered[numbers], numbers=numbers)
        return self._index

    def _read(self, number: int) -> FeatureRow:
        """The row or rows of one video or part, by its place in the file."""
        starts = self._indexed().first_rows
        first = int(starts[number])
        end = int(starts[number + 1]) if number + 1 < len(starts) else int(self._group_ends[-1])
        pieces: list[tuple[_Group, slice]] = []
        at = first
        while at < end:
            group = int(np.searchsorted(self._group_ends, at, side="right"))
            begin = int(self._group_ends[group - 1]) if group else 0
            last = min(end, int(self._group_ends[group]))
            pieces.append((self._group(group), slice(at - begin, last - begin)))
            at = last
        held, place = pieces[0]
        facts = {name: values[place.start] for name, values in held.columns.items()}
        frame, seconds = facts.pop("frame", None), facts.pop("seconds", None)
        if facts["error"] is not None:
            return FeatureRow(**facts)
        embedding = np.concatenate([held.embeddings[part] for held, part in pieces])
        if not self.metadata.per_frame:
            return FeatureRow(**facts, embedding=embedding[0])
        if frame is None or seconds is None or len(embedding) != end - first:
            raise FeatureFileError(f"{self.path} is damaged: row {first} lacks its frame")
        frames = [value for held, part in pieces for value in held.columns["frame"][part]]
        times = [value for held, part in pieces for value in held.columns["seconds"][part]]
        return FeatureRow(
            **facts, embedding=embedding, frames=np.array(frames, np.int32), seconds=np.array(times, np.float64)
        )

    def _group(self, number: int) -> _Group:
        if number in self._groups:
            self._groups.move_to_end(number)
            return self._groups[number]
        names = ["path", "sha256", "start_seconds", "end_seconds", "error"]
        names += ["frame", "seconds"] if self.metadata.per_frame else []
        table = self._read_group(number, [*names, "embedding"])
        flat = np.array(table.column("embedding").combine_chunks().flatten(), np.float32)
        columns = {name: table.column(name).to_pylist() for name in names}
        if len(flat) != table.num_rows * self.metadata.dim:  # a list that is null
            raise FeatureFileError(f"{self.path} is damaged: its embeddings are not all of {self.metadata.dim} numbers")
        self._groups[number] = _Group(columns=columns, embeddings=flat.reshape(-1, self.metadata.dim))
        while len(self._groups) > _GROUPS_HELD:
            self._groups.popitem(last=False)
        return self._groups[number]

    def _read_group(self, number: int, columns: Sequence[str]) -> Any:
        try:
            return self._file.read_row_group(number, columns=list(columns))
        except (OSError, self._arrow.ArrowException) as error:
            raise FeatureFileError(f"{self.path} is damaged: {_first_line(error)}") from error


def check_feature_file(path: Path) -> None:
    """Refuse, before anything is embedded, a file that could not be written.

    Raises:
        UsageError: Its ending is not .parquet, or its folder is not there.
        MissingLibraryError: pyarrow is not installed.
    """
    if path.suffix.lower() != ".parquet":
        raise UsageError(f"{path} ends in {path.suffix!r}; embeddings are written as .parquet")
    import_library("pyarrow")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file with --out")
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} is not there; make it, or name another file with --out")


def _key(path: str, start_seconds: float | None, end_seconds: float | None) -> tuple[str, float, float | None]:
    return path, start_seconds or 0.0, end_seconds


def _follows(frame: list[int | None], before: list[int | None]) -> bool:
    """Whether a row goes on with the frames of the one before it: those of one part have rising numbers."""
    return bool(frame) and frame[0] is not None and before[0] is not None and frame[0] > before[0]


def _first_line(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).partition(os.linesep)[0]
