"""Templates, and the sets of them: a label's phrase goes into the hole of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipact.errors import LabelError
from clipact.prompts.clean import clean
from clipact.prompts.label_set import LabelSet
from clipact.prompts.set_files import find_set, read_set


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


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """Templates under one name; LabelError when there is none, or one stands twice."""

    name: str
    templates: tuple[Template, ...]
    title: str = ""
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        if not self.templates:
            raise LabelError(f"prompt set {self.name!r} has no template; '{{}}' alone would do")
        if len(set(self.templates)) < len(self.templates):
            twice = next(t.text for t in self.templates if self.templates.count(t) > 1)
            raise LabelError(f"prompt set {self.name!r} has the template {twice!r} twice; keep one")

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
            title=file.title,
            source=file.source,
            licence=file.licence,
        )

    def sentences(self, labels: LabelSet | Sequence[str]) -> tuple[list[str], list[int]]:
        """Each label's phrase in each template, label by label, and beside each sentence its label's number, 0..n-1."""
        label_set = LabelSet.of_any(labels)
        sentences = [template.fill(phrase) for phrase in label_set.phrases for template in self.templates]
        groups = [number for number in range(len(label_set)) for _ in self.templates]
        return sentences, groups


@dataclass(frozen=True, kw_only=True)
class _File:
    """prompts/templates/*.toml."""

    name: str
    templates: tuple[str, ...]
    title: str = ""
    source: str = ""
    licence: str = ""
