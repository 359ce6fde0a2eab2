"""Label sets: what a model chooses from, made of words, of files, or of what was typed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Literal, get_args

from clipact.errors import ConfigError, LabelError, choices
from clipact.prompts.english import phrase, split_words
from clipact.prompts.text_input import (
    clean,
    find_set,
    read_lines,
    read_set,
    refuse_misspelt_set,
    set_names,
    split_value,
)

Names = Literal["phrases", "split", "verbatim"]
WordingParts = Literal["phrase", "synonyms", "descriptions"]
OverTemplates = Literal["embeddings", "probabilities", "weighted"]
OverWords = Literal["mean", "max"]


@dataclass(frozen=True, kw_only=True)
class Wording:
    """What is said of a label, and what becomes of it.

    names           how the label is written: a phrase ("using a laptop"), its words split ("use laptop"), or verbatim
    words           what is said: the phrase, synonyms (both in each template), descriptions (sentences already)
    over_templates  embeddings: the mean of the unit vectors, made unit (CLIP, arXiv 2103.00020, section 3.1.4)
                    probabilities: each template is a classifier of its own, and their probabilities are averaged
                    weighted: the mean of the logits by the templates' weights (ZPE, clipact.classify.text_classifier)
    over_words      a label is as likely as its words on average (mean) or as the likeliest of them (max)
    """

    names: Names = "phrases"
    words: tuple[WordingParts, ...] = ("phrase",)
    over_templates: OverTemplates = "embeddings"
    over_words: OverWords = "mean"

    def __post_init__(self) -> None:
        for name, kind in (("names", Names), ("over_templates", OverTemplates), ("over_words", OverWords)):
            value, allowed = getattr(self, name), get_args(kind)
            if value not in allowed:
                raise ConfigError(f"wording.{name} is {value!r}; {choices(str(value), allowed)}")
        if not self.words or len(set(self.words)) < len(self.words) or set(self.words) - set(get_args(WordingParts)):
            raise ConfigError(
                f"wording.words is {list(self.words)}; one or more of {', '.join(get_args(WordingParts))}"
            )


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
