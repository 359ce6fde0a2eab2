"""Read a manifest line by line: what is kept of a line that was read is 70 bytes, however long the table.

`clipact.data.manifest` says what a manifest is, and reads one whole.
"""

import csv
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from clipact import aliases
from clipact.data.compact_columns import DigestNumbers
from clipact.data.first_lines import FirstLine, FirstLines, Said
from clipact.data.manifest_cells import (
    CsvRow,
    check_columns,
    parse_extra_labels,
    parse_path,
    parse_split,
    parse_text,
    parse_times,
)
from clipact.errors import ConfigError, ManifestError


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestSample:
    """One file, or a part of it, and what is said of it.

    path          below the manifest's root
    captions      sentences about it; empty when it has a label
    label         a phrase, or None when it has captions
    extra_labels  other labels that are true of it: evaluation takes them for right, too; training learns `label` alone
    line          where it first stands in the manifest
    group         what its reader's `group_column` says; samples of one group are not independent of each other
    """

    path: str
    captions: tuple[str, ...]
    label: str | None
    split: str
    start_seconds: float | None
    end_seconds: float | None
    line: int
    group: str = ""
    extra_labels: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The path, and which part of the file."""
        if self.start_seconds is None and self.end_seconds is None:
            return self.path
        end = "" if self.end_seconds is None else f"{self.end_seconds:g}"
        return f"{self.path}@{self.start_seconds or 0:g}-{end}"

    @property
    def labels(self) -> tuple[str, ...]:
        """All that are true of it; () when it has captions."""
        return () if self.label is None else (self.label, *self.extra_labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestLine:
    """What one line of a table says.

    sample  the sample as this line alone gives it
    number  of the sample, counted from 0 in the order of first lines; lines of one sample share it
    first   whether the sample stands here for the first time
    repeat  whether the line says again what a line before it says
    """

    sample: ManifestSample
    number: int
    first: bool
    repeat: bool


class ManifestReader:
    """An open table, to be read once, line by line; made by `open_manifest`.

    Of a line that was read about 70 bytes are kept, to know its sample and its caption again.

    source, root, ignored  as `Manifest` has them
    """

    def __init__(
        self,
        source: Path,
        root: Path,
        *,
        rows: Iterable[tuple[int, CsvRow | None]],
        text_column: str | None,
        group_column: str,
        ignored: tuple[str, ...],
    ) -> None:
        self.source, self.root, self.ignored = source, root, ignored
        self._rows, self._text_column, self._group_column = rows, text_column, group_column

    def samples(self) -> Iterator[ManifestSample | ManifestError]:
        """Yield each sample once, as its first line gives it, and the error of each wrong line, in order of lines."""
        for line in self.lines():
            if isinstance(line, ManifestError):
                yield line
            elif line.first:
                yield line.sample

    def lines(self) -> Iterator[ManifestLine | ManifestError]:
        """Yield what each line says, or what is wrong with it, in order.

        Raises:
            ManifestError: The file cannot be read on.
        """
        firsts, captions = FirstLines(), DigestNumbers()
        for line, row in self._rows:
            try:
                sample = self._sample(row, line)
                key = (sample.path, sample.start_seconds, sample.end_seconds)
                said = Said(sample.split, sample.label, sample.extra_labels)
                first = firsts.setdefault(key, line=line, said=said)
                _check_agreement(first, said, path=sample.path)
            except ValueError as error:
                yield ManifestError(self.source, line, str(error))
                continue
            before = len(captions)
            for caption in sample.captions:
                captions.number(first.number, caption)
            again = first.line != line
            yield ManifestLine(
                sample=sample, number=first.number, first=not again, repeat=again and len(captions) == before
            )

    def _sample(self, row: CsvRow | None, line: int) -> ManifestSample:
        """The sample of one line; ValueError says what is wrong with it."""
        if row is None:
            raise ValueError("it has more or fewer values than the head has columns")
        text = parse_text(row, self._text_column)
        extra_labels = parse_extra_labels(row, self._text_column, text)
        split = parse_split(row)
        start, end = parse_times(row)
        # Interned: paths, labels and groups that repeat are in memory once, where samples are kept.
        return ManifestSample(
            path=sys.intern(parse_path(row["path"])),
            captions=(text,) if self._text_column == "caption" else (),
            label=sys.intern(text) if self._text_column == "label" else None,
            split=sys.intern(split),
            start_seconds=start,
            end_seconds=end,
            line=line,
            group=sys.intern(row[self._group_column].strip()) if self._group_column else "",
            extra_labels=extra_labels,
        )


@contextmanager
def open_manifest(
    source: str | Path, root: str | Path | None = None, *, group_column: str = "", unlabelled: bool = False
) -> Iterator[ManifestReader]:
    """Open the table in a CSV file, to read it line by line.

    Args:
        source: The CSV file.
        root: The folder that paths start from, by default the file's own.
        group_column: The column that `ManifestSample.group` is read from.
        unlabelled: Leave captions and labels aside.

    Raises:
        ManifestError: The file is not there, is not CSV, has no line below its head, or lacks a column.
    """
    source = Path(source)
    with _as_manifest_errors(source):
        file = source.open(encoding="utf-8-sig", newline="")
    with file:
        with _as_manifest_errors(source):
            table = csv.reader(file, strict=True)
            columns = next(table, [])
            renamed = aliases.rename_columns(columns)
            columns = [renamed.get(name, name) for name in columns]
        rows = _read_rows(source, table, columns)
        if (first := next(rows, None)) is None:
            raise ManifestError(source, None, "it has no line below its head")
        text_column, ignored = check_columns(columns, source, group_column=group_column, unlabelled=unlabelled)
        yield ManifestReader(
            source,
            Path(root) if root is not None else source.parent,
            rows=chain([first], rows),
            text_column=text_column,
            group_column=group_column,
            ignored=ignored,
        )


def count_rows(source: str | Path) -> int | None:
    """Count the rows of a CSV file below its head, without looking at what they say: a million in 0.5 to 0.8 s.

    Returns:
        The number of rows; None for what can be read only once, such as a pipe.

    Raises:
        ManifestError: The file is not there or not CSV.
    """
    source = Path(source)
    if source.exists() and not source.is_file():
        return None
    with _as_manifest_errors(source), source.open(encoding="utf-8-sig", newline="") as file:
        table = csv.reader(file, strict=True)
        next(table, None)
        return sum(map(bool, table))


@contextmanager
def _as_manifest_errors(source: Path) -> Iterator[None]:
    """Say what keeps a file from being read as a table."""
    try:
        yield
    except OSError as error:
        raise ManifestError(source, None, error.strerror or str(error)) from error
    except ConfigError as error:
        raise ManifestError(source, 1, str(error)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(source, None, f"it cannot be read as UTF-8 CSV: {error}") from error


def _read_rows(source: Path, table: Any, columns: list[str]) -> Iterator[tuple[int, CsvRow | None]]:
    """Each row that is not blank and the number of its last line; None for one that does not fit the head."""
    with _as_manifest_errors(source):
        for row in table:
            if row:
                yield table.line_num, dict(zip(columns, row, strict=True)) if len(row) == len(columns) else None


def _check_agreement(first: FirstLine, said: Said, *, path: str) -> None:
    if first.said == said:
        return
    for name, before, now in zip(Said._fields, first.said, said, strict=True):
        if before != now:
            raise ValueError(f"{name} of {path} is {now!r} here and {before!r} in line {first.line}; it has one")
