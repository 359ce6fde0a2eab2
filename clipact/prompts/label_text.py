"""Labels as text: what is typed at an option, and files of one label a line. Strings in, strings out."""

import csv
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from clipact.errors import LabelError, choices

_FILES = frozenset({".toml", ".txt", ".csv"})


def split_value(value: str) -> list[str]:
    """The labels between a value's commas, by the rules of CSV; LabelError for an empty one or a stray quote."""
    try:
        rows = list(csv.reader([value], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise LabelError(
            f"labels {value!r} cannot be split at commas ({error}); put them in a file, one a line, and give @FILE"
        ) from error
    labels = [label.strip() for row in rows for label in row]
    if not labels or not all(labels):
        raise LabelError(
            f"labels {value!r} hold an empty one; a label with a comma stands in quotes: "
            """'"put down, then leave",read'"""
        )
    return labels


def read_lines(path: Path) -> list[str]:
    """The labels in a file, one a line; blank lines and lines that start with # are passed over."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LabelError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{path} is not UTF-8 text; save it as UTF-8, one label a line") from error
    lines = [line.strip() for line in text.split("\n")]
    labels = [line for line in lines if line and not line.startswith("#")]
    if not labels:
        raise LabelError(f"{path} holds no labels; write one a line")
    return labels


def names_a_file(label: str) -> bool:
    """Whether a label looks like the name of a file of labels: mine.toml, mine.toml:TAG."""
    return Path(label.partition(":")[0]).suffix.lower() in _FILES


def refuse_misspelt_set(label: str, names: Sequence[str]) -> None:
    """LabelError when a label is a file's name, a set's but for case and dashes, or has a number and is nearly one."""
    if not label.startswith("@") and names_a_file(label):
        raise LabelError(f"{label!r} is the name of a file: write @{label} for the labels in it, one a line or TOML")
    name, bare = label.partition(":")[0], {_bare(name) for name in names}
    near = re.search(r"\d", name) and get_close_matches(_bare(name), bare, cutoff=0.85)
    if name not in names and (near or _bare(name) in bare):
        raise LabelError(f"{name!r} is no label set; {choices(name, names)}. If it is a label, put it in an @FILE")


def _bare(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()
