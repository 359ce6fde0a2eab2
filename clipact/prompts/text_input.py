"""Where label sets and prompt sets are found, and how their files are read; each class says what it takes from them."""

import csv
import re
import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, TypeVar

from clipact.assets import asset_names, asset_path
from clipact.config import load_toml, parse
from clipact.errors import ConfigError, LabelError, choices

_JOINERS = "\u200c\u200d"  # some scripts and many emoji cannot be written without them


def clean(text: str) -> str:
    """The text with its encoding mended (ftfy), in NFC, with single spaces; LabelError when nothing is left."""
    mended = text.strip()
    if not mended.isascii() or "&" in mended:
        import ftfy  # 80 ms, and plain ASCII has nothing to mend

        # What cannot be seen is left in, to be refused below.
        mended = ftfy.fix_text(mended, remove_control_chars=False, remove_terminal_escapes=False, fix_line_breaks=False)
    if not mended.isprintable():
        _refuse_invisible(mended)
    if "\ufffd" in mended:
        raise LabelError(f"{text!r} is not valid UTF-8; save the file, or set the terminal, to UTF-8")
    mended = " ".join(mended.split())
    if not mended:
        raise LabelError(f"{text!r} is empty; write a word or leave it out")
    return mended


def _refuse_invisible(text: str) -> None:
    for character in text:
        if unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp"} and character not in _JOINERS:
            name = unicodedata.name(character, "a control character")
            raise LabelError(f"{text!r} holds U+{ord(character):04X} ({name}), which cannot be seen; remove it")


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


T = TypeVar("T")
SetKind = Literal["labels", "templates"]
_CALLED = {"labels": "label set", "templates": "prompt set"}


def set_names(kind: SetKind) -> list[str]:
    """The names of the sets that come with clipact, sorted."""
    return [name.removesuffix(".toml") for name in asset_names(f"prompts/{kind}") if name.endswith(".toml")]


def holds_templates(name_or_path: str | Path) -> bool:
    """Whether it is a prompt set by its name or its file, and not a label set."""
    path = Path(name_or_path).expanduser()
    if path.suffix == ".toml" and path.is_file():
        return "templates" in load_toml(path)
    return str(name_or_path) in set_names("templates")


def find_set(name_or_path: str | Path, kind: SetKind) -> Path:
    """The file of a set: a shipped one by its name, another by its path; LabelError when it is neither."""
    names = set_names(kind)
    if name_or_path in names:
        return asset_path(f"prompts/{kind}/{name_or_path}.toml")
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    if path.suffix or len(path.parts) > 1:
        raise LabelError(f"{path}: no such file")
    raise LabelError(f"there is no {_CALLED[kind]} {str(path)!r}; {choices(str(path), names)}; or give a file's path")


def read_set(form: type[T], path: Path) -> T:
    """The TOML file as an instance of the dataclass `form`; ConfigError names the file and the key."""
    try:
        return parse(form, load_toml(path))
    except ConfigError as error:
        if str(error).startswith(str(path)):
            raise
        raise ConfigError(f"{path}: {error}") from error
