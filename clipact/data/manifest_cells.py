"""The columns of a manifest and the values in its cells, checked strictly: a ValueError says what is wrong with one."""

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from clipact.errors import LabelError, ManifestError, choices
from clipact.prompts import clean

SPLITS = ("train", "dev", "val", "test", "unassigned")
_TEXTS = ("caption", "label")
_OPTIONAL = ("split", "start_seconds", "end_seconds", "extra_labels")
_REMEMBERED = 4096  # texts: labels repeat, and one with letters that are not ASCII takes 50 µs to mend

CsvRow = Mapping[str, str]


def check_columns(
    columns: Sequence[str], source: Path, *, group_column: str, unlabelled: bool
) -> tuple[str | None, tuple[str, ...]]:
    """Return the column of the text, and the columns that are not ours.

    Raises:
        ManifestError: The head of the table cannot be meant.
    """
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


_clean = lru_cache(_REMEMBERED)(clean)


def parse_text(row: CsvRow, column: str | None) -> str:
    """Return the cleaned text of the column, "" without one."""
    if column is None:
        return ""
    try:
        return _clean(row[column])
    except LabelError as error:
        raise ValueError(f"its {column} cannot be used: {error}") from error


def parse_extra_labels(row: CsvRow, text_column: str | None, label: str) -> tuple[str, ...]:
    """Return the labels that are true beside `label`."""
    cell = row.get("extra_labels", "")
    said = [one for one in cell.split("|") if one.strip()] if cell else []
    if said and text_column == "caption":
        raise ValueError("extra_labels is for labels; a sample of several captions has a line for each")
    try:
        others = tuple(_clean(one) for one in said)
    except LabelError as error:
        raise ValueError(f"its extra_labels cannot be used: {error}") from error
    if len({label, *others}) <= len(others):
        raise ValueError(f"extra_labels is {cell!r}: a label stands twice, or is the sample's own")
    return others


def parse_split(row: CsvRow) -> str:
    """Return the split, "train" in a table without such a column."""
    split = row.get("split", "train").strip()
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; {choices(split, SPLITS)}")
    return split


def parse_path(path: str) -> str:
    """Return the path in its shortest spelling, below the root."""
    shortest = os.path.normpath(path)
    if not path.strip() or "\0" in path or shortest == ".":
        raise ValueError(f"path {path!r} names no file")
    if os.path.isabs(shortest) or shortest.split(os.sep, 1)[0] == "..":  # noqa: PTH117 - a Path takes 4 µs a row
        raise ValueError(f"path {path!r} leads out of the root; paths start from the root and stay below it")
    return shortest


def parse_times(row: CsvRow) -> tuple[float | None, float | None]:
    """Return the start and the end of a part of a file, in seconds."""
    start, end = _parse_seconds(row, "start_seconds"), _parse_seconds(row, "end_seconds")
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"end_seconds, {end:g}, is not after the start, {start or 0:g}")
    return start, end


def _parse_seconds(row: CsvRow, column: str) -> float | None:
    text = row.get(column, "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(f"{column} is {text!r}; it takes a number of seconds, or nothing") from None
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{column} is {text}; it takes a number of seconds from 0 on, or nothing")
    return seconds
