"""Which wordings a sweep tries: every combination that makes other sentences, or pools them otherwise, once."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from clipact.errors import ConfigError, choices
from clipact.prompts import LabelSet, PromptSet, Template, set_names
from clipact.prompts.label_set import Names
from clipact.prompts.prompt_set import OverTemplates, WordingParts

INCLUDE: dict[str, tuple[WordingParts, ...]] = {
    "phrase": ("phrase",),
    "synonyms": ("phrase", "synonyms"),
    "descriptions": ("phrase", "descriptions"),
    "all": ("phrase", "synonyms", "descriptions"),
}
POOLING: dict[str, OverTemplates] = {one: one for one in ("embeddings", "probabilities", "weighted")}
LABEL_FORMATS: dict[str, Names] = {one: one for one in ("phrases", "split", "verbatim")}
_HOLE = Template("{}")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The axes of a sweep; `include` are keys of INCLUDE, `frames` None for the protocol's own number.

    Whatever a label set has no synonyms or descriptions for falls away by itself, and so does what comes out the same.
    """

    templates: tuple[str, ...] = ()
    label_format: tuple[str, ...] = tuple(LABEL_FORMATS)
    pooling: tuple[str, ...] = tuple(POOLING)
    include: tuple[str, ...] = tuple(INCLUDE)
    frames: tuple[int | None, ...] = (None,)

    def __post_init__(self) -> None:
        for axis, allowed in (("label_format", LABEL_FORMATS), ("pooling", POOLING), ("include", INCLUDE)):
            for value in getattr(self, axis):
                if value not in allowed:
                    raise ConfigError(f"{axis} has {value!r}; {choices(value, allowed)}")
        if not all((self.label_format, self.pooling, self.include, self.frames)):
            raise ConfigError("each axis of a sweep has one value at least")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One wording at one number of frames. `name` says how it differs from phrases alone and their mean embedding."""

    name: str
    prompts: PromptSet
    frames: int | None = None


def variants(grid: Grid, labels: LabelSet, *, baseline: str) -> list[Variant]:
    """The baseline (a prompt set as it is, at the first number of frames), then all others, each once."""
    plain = PromptSet.load(baseline)
    first = Variant(name=_name(plain, grid.frames[0]), prompts=plain, frames=grid.frames[0])
    found = {(first.frames, _essence(plain, labels)): first}
    for frames, prompts in product(grid.frames, _wordings(grid)):
        one = Variant(name=_name(prompts, frames), prompts=prompts, frames=frames)
        found.setdefault((frames, _essence(prompts, labels)), one)
    named = Counter(one.name for one in found.values())
    if twice := [one.prompts.name for one in found.values() if named[one.name] > 1]:
        raise ConfigError(f"two prompt sets of the sweep are called {twice[0]!r}; write another name into one file")
    return list(found.values())


def _wordings(grid: Grid) -> Iterator[PromptSet]:
    for name in grid.templates or set_names("templates"):
        prompts = PromptSet.load(name)
        for names, words, pooling in product(grid.label_format, grid.include, grid.pooling):
            one = prompts.worded(names=LABEL_FORMATS[names], words=INCLUDE[words], over_templates=POOLING[pooling])
            yield one
            yield one.worded(over_words="max")


def _essence(prompts: PromptSet, labels: LabelSet) -> tuple[object, ...]:
    """What decides the logits: two wordings with the same are one."""
    said = replace(prompts, templates=(_HOLE,), weights=()).fill(labels)  # one template tells what fills them all
    over = prompts.wording.over_templates if len(prompts.templates) > 1 else "embeddings"
    several = any(prompt.word > 0 for prompt in said)
    weights = prompts.weights if over == "weighted" else ()
    return prompts.templates, tuple(said), over, prompts.wording.over_words if several else "mean", weights


def _name(prompts: PromptSet, frames: int | None) -> str:
    wording = prompts.wording
    parts = [prompts.name]
    if wording.names != "phrases":
        parts.append(f"{wording.names} names")
    if "phrase" not in wording.words:
        parts.append("no phrase")
    parts += [f"+ {word}" for word in wording.words if word != "phrase"]
    if wording.over_templates != "embeddings":
        parts.append({"probabilities": "mean probability", "weighted": "weighted templates"}[wording.over_templates])
    if wording.over_words == "max":
        parts.append("likeliest word")
    if frames is not None:
        parts.append(f"{frames} frames")
    return ", ".join(parts)
