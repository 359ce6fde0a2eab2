"""Read and clean labels: what was typed, files of labels, and the sets that come with clipact.

Every text that enters is cleaned: its encoding mended, Unicode in NFC, single spaces, nothing invisible.
"""

import csv
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import groupby
from pathlib import Path
from typing import Literal, TypeVar

from clipact.config import asset_names, asset_path, load_toml, parse
from clipact.errors import ConfigError, LabelError, choices
from clipact.prompts.english import phrase, split_words

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


Names = Literal["phrases", "split", "verbatim"]


@dataclass(frozen=True, kw_only=True)
class LabelDetails:
    """What a label file adds to one label; `phrase` stands instead of the one that the rules make."""

    phrase: str | None = None
    synonyms: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()
    parent: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """Labels in their order, and for each the phrase that fills a template's hole.

    labels   as they were given: what a prediction answers with
    phrases  "drink" reads "drinking" (clipact.prompts.english)
    about    more on those labels that a file says more of

    LabelError when there is no label, or when two are the same or read the same.
    """

    name: str
    labels: tuple[str, ...]
    phrases: tuple[str, ...]
    about: Mapping[str, LabelDetails] = field(default_factory=dict)
    title: str = ""
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        if not self.labels:
            raise LabelError("there are no labels; give at least one, such as drink,read")
        if len(self.labels) != len(self.phrases):
            raise LabelError(f"{len(self.labels)} labels but {len(self.phrases)} phrases; each label has one")
        _refuse_twins(self.labels, self.phrases)

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(cls, labels: Sequence[str], *, phrases: Sequence[str] | None = None, name: str = "own") -> "LabelSet":
        """A label set from words; `phrases=labels` puts them into sentences unchanged, as some protocols ask."""
        if isinstance(labels, str):
            raise LabelError(f"labels are the one string {labels!r}; give a list of them, or use parse_labels")
        cleaned = tuple(clean(label) for label in labels)
        made = map(phrase, cleaned) if phrases is None else map(clean, phrases)
        return cls(name=name, labels=cleaned, phrases=tuple(made))

    @classmethod
    def of_any(cls, labels: "LabelSet | Sequence[str] | str") -> "LabelSet":
        """A label set from itself, from a sequence of labels, or from a string as `parse_labels` reads it."""
        if isinstance(labels, LabelSet):
            return labels
        return parse_labels([labels]) if isinstance(labels, str) else cls.of(labels)

    @classmethod
    def load(cls, name_or_path: str | Path) -> "LabelSet":
        """A shipped set ("kinetics400"), or a file; "daily-living:ten" and "mine.toml:ten" are its labels with one tag.

        A TOML file has the form of those under prompts/labels; any other file holds one label a line.
        """
        name, _, tag = str(name_or_path).rpartition(":")
        if name in set_names("labels") or (Path(name).suffix == ".toml" and not Path(name_or_path).is_file()):
            return cls.load(name).tagged(tag)
        path = find_set(name_or_path, "labels")
        if path.suffix != ".toml":
            return cls.of(read_lines(path), name=path.stem)
        file = read_set(_File, path)
        labels = tuple(clean(label) for label in file.labels)
        about = {clean(label): _cleaned(more) for label, more in file.about.items()}
        for label in about.keys() - set(labels):
            raise LabelError(f"{path}: [about] has {label!r}, which is none of its labels; {choices(label, labels)}")
        own = (about[label].phrase if label in about else None for label in labels)
        return cls(
            name=file.name,
            labels=labels,
            phrases=tuple(given or phrase(label) for label, given in zip(labels, own, strict=True)),
            about=about,
            title=file.title,
            source=file.source,
            licence=file.licence,
        )

    def written(self, names: Names) -> tuple[str, ...]:
        """What stands for each label in a sentence: its phrase, its words split and no more, or the label verbatim."""
        if names == "phrases":
            return self.phrases
        return self.labels if names == "verbatim" else tuple(" ".join(split_words(label)) for label in self.labels)

    def only(self, labels: Sequence[str]) -> "LabelSet":
        """Those of its labels, in that order, and what it says of them."""
        phrases = dict(zip(self.labels, self.phrases, strict=True))
        return replace(
            self,
            labels=tuple(labels),
            phrases=tuple(phrases[label] for label in labels),
            about={label: self.about[label] for label in labels if label in self.about},
        )

    def tagged(self, tag: str) -> "LabelSet":
        """The labels that carry `tag`, in their order; LabelError when none does."""
        tags = {tag for more in self.about.values() for tag in more.tags}
        if tag not in tags:
            raise LabelError(f"no label of {self.name} is tagged {tag!r}; {choices(tag, tags)}")
        own = self.only([one for one in self.labels if one in self.about and tag in self.about[one].tags])
        return replace(own, name=f"{self.name}:{tag}")


def parse_labels(values: Sequence[str]) -> LabelSet:
    """The label set that is meant by the values of a repeatable option.

    A value is labels between commas, by the rules of CSV: a label that holds a comma stands in double quotes. A label
    may be a shipped set's name, which stands for its labels, or @FILE, which stands for those in the file.
    """
    names = set_names("labels")
    given = []
    for value in values:
        labels = split_value(value)
        if len(labels) == 1:
            refuse_misspelt_set(labels[0], names)
        given += labels
    parts: list[LabelSet] = []
    for names_a_set, run in groupby(given, lambda label: label.startswith("@") or label.partition(":")[0] in names):
        if names_a_set:
            parts += [LabelSet.load(Path(one[1:]) if one.startswith("@") else one) for one in run]
        else:
            parts.append(LabelSet.of(list(run)))
    if len(parts) == 1:
        return parts[0]
    return LabelSet(
        name="+".join(dict.fromkeys(part.name for part in parts)),
        labels=tuple(label for part in parts for label in part.labels),
        phrases=tuple(phrase for part in parts for phrase in part.phrases),
        about={label: more for part in parts for label, more in part.about.items()},
    )


def _cleaned(more: LabelDetails) -> LabelDetails:
    return replace(
        more,
        phrase=None if more.phrase is None else clean(more.phrase),
        synonyms=tuple(map(clean, more.synonyms)),
        descriptions=tuple(map(clean, more.descriptions)),
        parent=None if more.parent is None else clean(more.parent),
        tags=tuple(map(clean, more.tags)),
    )


def _refuse_twins(labels: Sequence[str], phrases: Sequence[str]) -> None:
    """LabelError that names the labels that are the same, or that read the same in a sentence."""
    reads: dict[str, str] = {}  # a phrase -> the label that first had it
    seen: set[str] = set()
    twins = []
    for label, words in zip(labels, phrases, strict=True):
        if label in seen:
            twins.append(f"{label!r} is there twice")
        elif words.casefold() in reads:
            twins.append(f"{reads[words.casefold()]!r} and {label!r} both read {words!r}")
        seen.add(label)
        reads.setdefault(words.casefold(), label)
    if twins:
        more = f"; and {len(twins) - 3} more" if len(twins) > 3 else ""
        raise LabelError(f"{'; '.join(twins[:3])}{more}: keep one of them, or word them apart")


@dataclass(frozen=True, kw_only=True)
class _File:
    """prompts/labels/*.toml."""

    name: str
    labels: tuple[str, ...]
    about: dict[str, LabelDetails] = field(default_factory=dict)
    title: str = ""
    source: str = ""
    licence: str = ""
