"""A manifest is a CSV table of what there is to learn from: a line a file and its caption or label.

    path,caption,split                          several captions a file: several lines with one path
    path,label,split,start_seconds,end_seconds  a part of a file is a sample of its own
    path,label,extra_labels                          what else is true of it: other labels, with | between them

Only `path` and one of `caption` and `label` must be there; where nothing is to be said of clips, `path` alone. It is
read whole and strictly; no media file is opened.
"""

import csv
import difflib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clipact import aliases
from clipact.errors import ConfigError, LabelError, ManifestError, choices
from clipact.prompts import clean

SPLITS = ("train", "dev", "val", "test", "unassigned")
_TEXTS = ("caption", "label")
_OPTIONAL = ("split", "start_seconds", "end_seconds", "extra_labels")

CsvRow = dict[str | Any, str | Any]  # what csv.DictReader gives: None holds what is too much or too little


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A whole table.

    source   the CSV file
    root     the folder that paths start from
    samples  in the order in which they first stand in the file
    repeats  lines that say again what a line before them says; they count once
    ignored  columns that are not ours
    """

    source: Path
    root: Path
    samples: tuple[ManifestSample, ...]
    repeats: tuple[int, ...] = ()
    ignored: tuple[str, ...] = ()

    def of_split(self, split: str) -> tuple[ManifestSample, ...]:
        """The samples of one split, or every one for "all"; ManifestError when there are none."""
        chosen = tuple(sample for sample in self.samples if split in ("all", sample.split))
        if not chosen:
            there = {sample.split for sample in self.samples} | {"all"}
            raise ManifestError(self.source, None, f"no sample is of split {split!r}; {choices(split, there)}")
        return chosen


def read_manifest(
    source: str | Path, root: str | Path | None = None, *, group_column: str = "", unlabelled: bool = False
) -> Manifest:
    """The table in a CSV file; paths start from `root`, by default the file's own folder.

    Without a column `split` every sample is of "train". Read `unlabelled`, captions and labels are left aside.
    ManifestError names the file and the first wrong line.
    """
    manifest, wrong = scan_manifest(source, root, group_column=group_column, unlabelled=unlabelled)
    if wrong:
        more = f" (and {len(wrong) - 1} more: `clipact data check` lists them)" if len(wrong) > 1 else ""
        raise ManifestError(wrong[0].path, wrong[0].line, wrong[0].cause + more)
    return manifest


def scan_manifest(
    source: str | Path, root: str | Path | None = None, *, group_column: str = "", unlabelled: bool = False
) -> tuple[Manifest, list[ManifestError]]:
    """What can be used of the table, and everything that is wrong with the rest.

    ManifestError when nothing can: the file is not there, not CSV, has no line, or lacks a column.
    """
    source = Path(source)
    rows, columns = _read_rows(source)
    text_column, ignored = _check_columns(columns, source, group_column=group_column, unlabelled=unlabelled)
    firsts: dict[tuple[str, float | None, float | None], ManifestSample] = {}
    captions: dict[tuple[str, float | None, float | None], list[str]] = {}
    repeats: list[int] = []
    wrong: list[ManifestError] = []
    for line, row in rows:
        try:
            sample = _sample(row, text_column, line=line, group_column=group_column)
            key = (sample.path, sample.start_seconds, sample.end_seconds)
            first = firsts.setdefault(key, sample)
            _check_agreement(first, sample)
        except ValueError as error:
            wrong.append(ManifestError(source, line, str(error)))
            continue
        said = captions.setdefault(key, [])
        new = [caption for caption in sample.captions if caption not in said]
        said += new
        if sample is not first and not new:
            repeats.append(line)
    samples = tuple(replace(first, captions=tuple(captions[key])) for key, first in firsts.items())
    manifest = Manifest(
        source=source,
        root=Path(root) if root is not None else source.parent,
        samples=samples,
        repeats=tuple(repeats),
        ignored=ignored,
    )
    return manifest, wrong


def _read_rows(source: Path) -> tuple[list[tuple[int, CsvRow]], Sequence[str]]:
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            renamed = aliases.rename_columns(table.fieldnames or ())
            table.fieldnames = [renamed.get(name, name) for name in table.fieldnames or ()]
            rows = [(table.line_num, row) for row in table]
            columns = table.fieldnames
    except OSError as error:
        raise ManifestError(source, None, error.strerror or str(error)) from error
    except ConfigError as error:
        raise ManifestError(source, 1, str(error)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(source, None, f"it cannot be read as UTF-8 CSV: {error}") from error
    if not rows:
        raise ManifestError(source, None, "it has no line below its head")
    return rows, columns


def _check_columns(
    columns: Sequence[str], source: Path, *, group_column: str, unlabelled: bool
) -> tuple[str | None, tuple[str, ...]]:
    """The column of the text, and the columns that are not ours; ManifestError when the head cannot be meant."""
    known = ("path", *_TEXTS, *_OPTIONAL, *([group_column] if group_column else []))
    if group_column and group_column not in columns:
        raise ManifestError(source, 1, f"it has no column {group_column!r}; {choices(group_column, columns)}")
    texts = [name for name in columns if name in _TEXTS]
    if "path" not in columns or (len(texts) != 1 and not unlabelled):
        wanted = "is path" if unlabelled else "are path and either caption or label"
        raise ManifestError(source, 1, f"its columns are {', '.join(columns)}; wanted {wanted}")
    if len(set(columns)) < len(columns):
        raise ManifestError(source, 1, f"a column stands twice in {', '.join(columns)}")
    ignored = tuple(name for name in columns if name not in known)
    for name in ignored:
        if near := difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.75):
            raise ManifestError(source, 1, f"column {name!r} is unknown: did you mean {near[0]!r}? Else rename it")
    return None if unlabelled else texts[0], ignored


def _sample(row: CsvRow, text_column: str | None, *, line: int, group_column: str) -> ManifestSample:
    """The sample of one line; ValueError says what is wrong with it."""
    if None in row or None in row.values():
        raise ValueError("it has more or fewer values than the head has columns")
    try:
        text = "" if text_column is None else clean(row[text_column])
    except LabelError as error:
        raise ValueError(f"its {text_column} cannot be used: {error}") from error
    extra_labels = _others(row, text_column, text)
    split = row.get("split", "train").strip()
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; {choices(split, SPLITS)}")
    start, end = _seconds(row, "start_seconds"), _seconds(row, "end_seconds")
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"end_seconds, {end:g}, is not after the start, {start or 0:g}")
    return ManifestSample(
        path=_inside(row["path"]),
        captions=(text,) if text_column == "caption" else (),
        label=text if text_column == "label" else None,
        split=split,
        start_seconds=start,
        end_seconds=end,
        line=line,
        group=row[group_column].strip() if group_column else "",
        extra_labels=extra_labels,
    )


def _others(row: CsvRow, text_column: str | None, label: str) -> tuple[str, ...]:
    said = [one for one in (row.get("extra_labels") or "").split("|") if one.strip()]
    if said and text_column == "caption":
        raise ValueError("extra_labels is for labels; a sample of several captions has a line for each")
    try:
        others = tuple(clean(one) for one in said)
    except LabelError as error:
        raise ValueError(f"its extra_labels cannot be used: {error}") from error
    if len({label, *others}) <= len(others):
        raise ValueError(f"extra_labels is {row['extra_labels']!r}: a label stands twice, or is the sample's own")
    return others


def _check_agreement(first: ManifestSample, again: ManifestSample) -> None:
    for name in ("split", "label", "extra_labels"):
        before, now = getattr(first, name), getattr(again, name)
        if before != now:
            raise ValueError(f"{name} of {again.path} is {now!r} here and {before!r} in line {first.line}; it has one")


def _inside(path: str) -> str:
    """The path in its shortest spelling; ValueError when it names no file or leads out of the root."""
    shortest = os.path.normpath(path)
    if not path.strip() or "\0" in path or shortest == ".":
        raise ValueError(f"path {path!r} names no file")
    if Path(shortest).is_absolute() or Path(shortest).parts[0] == "..":
        raise ValueError(f"path {path!r} leads out of the root; paths start from the root and stay below it")
    return shortest


def _seconds(row: CsvRow, column: str) -> float | None:
    text = (row.get(column) or "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(f"{column} is {text!r}; it takes a number of seconds, or nothing") from None
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{column} is {text}; it takes a number of seconds from 0 on, or nothing")
    return seconds
