"""Fill templates with the phrases of labels: a prompt set has templates, and a wording for what is made of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from clipact.errors import ConfigError, LabelError, choices
from clipact.prompts.english import phrase
from clipact.prompts.label_set import LabelDetails, LabelSet, Names, clean, find_set, read_set

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
                    weighted: the mean of the logits by the templates' weights (ZPE, clipact.classify.template_weights)
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


@dataclass(frozen=True)
class Template:
    """A sentence with one hole `{}` for a phrase; LabelError when it has none, several, or another brace."""

    text: str

    def __post_init__(self) -> None:
        before, hole, after = self.text.partition("{}")
        if not hole or set("{}") & set(before + after):
            raise LabelError(f"template {self.text!r} needs one hole {{}} and no other brace, as in 'a photo of {{}}.'")

    def fill(self, phrase: str) -> str:
        """The prompt: the template with the phrase in its hole."""
        return self.text.replace("{}", phrase)


@dataclass(frozen=True)
class Prompt:
    """A sentence, and the numbers of its label, of the label's word and of its template (a description has none)."""

    text: str
    label: int
    word: int
    template: int | None


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """Templates under one name, and how their sentences are taken together.

    weights  one a template, none below 0, for a wording whose templates are weighted; () when still to be found

    LabelError when there is no template, or one stands twice, or the weights do not fit.
    """

    name: str
    templates: tuple[Template, ...]
    wording: Wording = field(default_factory=Wording)
    weights: tuple[float, ...] = ()
    title: str = ""
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        if not self.templates:
            raise LabelError(f"prompt set {self.name!r} has no template; '{{}}' alone would do")
        if len(set(self.templates)) < len(self.templates):
            twice = next(t.text for t in self.templates if self.templates.count(t) > 1)
            raise LabelError(f"prompt set {self.name!r} has the template {twice!r} twice; keep one")
        if self.weights and self.wording.over_templates != "weighted":
            raise LabelError(f'prompt set {self.name!r} has weights; write over_templates = "weighted" under [wording]')
        if self.weights and len(self.weights) != len(self.templates):
            raise LabelError(
                f"prompt set {self.name!r} has {len(self.weights)} weights for {len(self.templates)} templates"
            )
        if self.weights and (min(self.weights) < 0 or not 0 < sum(self.weights) < math.inf):
            raise LabelError(f"prompt set {self.name!r} has the weights {list(self.weights)}; none below 0, one above")

    @property
    def awaits_weights(self) -> bool:
        """Whether its templates are to be weighted, and nobody has said how much."""
        return self.wording.over_templates == "weighted" and not self.weights

    @classmethod
    def of(cls, templates: Sequence[str], *, name: str = "own") -> "PromptSet":
        """A prompt set from sentences with a hole."""
        return cls(name=name, templates=tuple(Template(clean(text)) for text in templates))

    @classmethod
    def load(cls, name_or_path: str | Path) -> "PromptSet":
        """A shipped set by its name ("action"), or a TOML file of the same form by its path."""
        file = read_set(_File, find_set(name_or_path, "templates"))
        return cls(
            name=file.name,
            templates=cls.of(file.templates, name=file.name).templates,
            wording=file.wording,
            weights=file.weights,
            title=file.title,
            source=file.source,
            licence=file.licence,
        )

    def worded(self, *, name: str | None = None, **changes: object) -> "PromptSet":
        """The same templates with a wording that `changes` fields; weights that no longer fit are dropped."""
        wording = replace(self.wording, **changes)  # type: ignore[arg-type]
        weights = self.weights if wording.over_templates == "weighted" else ()
        return replace(self, name=name or self.name, wording=wording, weights=weights)

    def fill(self, labels: LabelSet | Sequence[str]) -> list[Prompt]:
        """Every sentence: label by label, word by word, template by template; descriptions come last and are no blanks.

        LabelError for a label of which nothing is known that the wording asks for.
        """
        label_set = LabelSet.of_any(labels)
        written = label_set.written(self.wording.names)
        prompts: list[Prompt] = []
        for number, name in enumerate(label_set.labels):
            about = label_set.about.get(name, LabelDetails())
            words = [written[number]] if "phrase" in self.wording.words else []
            if "synonyms" in self.wording.words:
                words += map(phrase, about.synonyms)
            words = list(dict.fromkeys(words))
            ready = about.descriptions if "descriptions" in self.wording.words else ()
            if not words and not ready:
                raise LabelError(
                    f"label {name!r} has no {' and no '.join(self.wording.words)}; add the phrase to words"
                )
            for place, word in enumerate(words):
                prompts += [Prompt(one.fill(word), number, place, i) for i, one in enumerate(self.templates)]
            prompts += [Prompt(text, number, len(words) + i, None) for i, text in enumerate(ready)]
        return prompts

    def sentences(self, labels: LabelSet | Sequence[str]) -> tuple[list[str], list[int]]:
        """The texts of `fill`, and beside each its label's number, 0..n-1: what `embed_groups` takes."""
        prompts = self.fill(labels)
        return [prompt.text for prompt in prompts], [prompt.label for prompt in prompts]


@dataclass(frozen=True, kw_only=True)
class _File:
    """prompts/templates/*.toml."""

    name: str
    templates: tuple[str, ...]
    wording: Wording = field(default_factory=Wording)
    weights: tuple[float, ...] = ()
    title: str = ""
    source: str = ""
    licence: str = ""
