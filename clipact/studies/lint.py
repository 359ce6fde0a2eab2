"""Warnings about labels before a run: words alike to the model, cut, stuck together, ambiguous, or beyond it."""

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from jaxtyping import Float32

from clipact.cache import Cache
from clipact.classify.prediction import best_first
from clipact.classify.text_classifier import embed_labels
from clipact.config import asset_path, load_toml, parse
from clipact.engines.engine import Engine
from clipact.engines.vectors import unit
from clipact.errors import UsageError
from clipact.prompts import LabelSet, PromptSet
from clipact.prompts.english import gerund, known_verbs
from clipact.prompts.label_set import set_names

_ARTICLES = frozenset({"a", "an", "the", "some"})


@dataclass(frozen=True, kw_only=True)
class _Lists:
    """prompts/lint.toml; what each list is for is explained there."""

    opposites: str
    senses: dict[str, str]


def unsplit(phrases: Sequence[str]) -> list[tuple[int, str]]:
    """Each phrase that is still one run of words, by its number, and how it might be split.

    Seen are underscores, dots, capitals inside (ApplyEyeMakeup), and a verb that a known word is stuck to (Readbook).
    """
    found = []
    for number, phrase in enumerate(phrases):
        parts = [part for word in phrase.split() for part in re.split(r"[_.]|(?<=[a-z])(?=[A-Z])", word) if part]
        if len(parts) > len(phrase.split()):
            found.append((number, " ".join(parts).lower()))
        elif len(parts) == 1 and (stuck := _stuck(parts[0].lower())):
            found.append((number, stuck))
    return found


def several_senses(phrases: Sequence[str]) -> list[tuple[int, str]]:
    """Each phrase that is a verb alone and means several actions, by its number, with them."""
    senses = {gerund(verb): meanings for verb, meanings in _lists().senses.items()}
    pairs = ((number, senses.get(phrase.lower())) for number, phrase in enumerate(phrases))
    return [(number, found) for number, found in pairs if found]


def told_apart_by_order(phrases: Sequence[str]) -> list[tuple[int, int, str]]:
    """Pairs of phrases that are opposites ("putting on a hat", "taking off a hat"), with the words that make them so.

    Phrases of the same words in another order ("from left to right") are such a pair, too; articles do not count.
    """
    spelt = [_words(phrase) for phrase in phrases]
    bags = [Counter(words) for words in spelt]
    places: dict[frozenset[tuple[str, int]], list[int]] = {}
    for number, bag in enumerate(bags):
        places.setdefault(frozenset(bag.items()), []).append(number)
    found = {
        (i, j): "the order of the words"
        for alike in places.values()
        for i, j in combinations(alike, 2)
        if spelt[i] != spelt[j]
    }
    for one, other in _opposites():
        for number, bag in enumerate(bags):
            for here, there in ((one, other), (other, one)):
                if here <= bag:
                    for match in places.get(frozenset((bag - here + there).items()), ()):
                        pair = (min(number, match), max(number, match))
                        found.setdefault(pair, f"{' '.join(one.elements())} / {' '.join(other.elements())}")
    return [(i, j, why) for (i, j), why in sorted(found.items())]


def _words(phrase: str) -> list[str]:
    return [word for word in re.findall(r"[\w'-]+", phrase.lower()) if word not in _ARTICLES]


def _stuck(word: str) -> str:
    """ "readbook" -> "read book"; "" when the word is known or falls into no verb and word."""
    if word in _known_words():
        return ""
    for end in range(len(word) - 3, 2, -1):
        if word[:end] in known_verbs() and word[end:] in _known_words():
            return f"{word[:end]} {word[end:]}"
    return ""


@functools.cache
def _lists() -> _Lists:
    return parse(_Lists, load_toml(asset_path("prompts/lint.toml")))


@functools.cache
def _opposites() -> list[tuple[Counter[str], Counter[str]]]:
    lines = [line.partition(" / ") for line in _lists().opposites.strip().splitlines()]
    return [(Counter(one.split()), Counter(other.split())) for one, _, other in lines]


@functools.cache
def _known_words() -> frozenset[str]:
    """Verbs, their gerunds, and every word in the sentences of the shipped sets."""
    from clipact.prompts.label_set import LabelSet

    sets = [LabelSet.load(name) for name in set_names("labels")]
    words = {word for labels in sets for phrase in labels.phrases for word in re.findall(r"[a-z]+", phrase.lower())}
    return frozenset(words | known_verbs() | set(map(gerund, known_verbs())))


WarningKind = Literal["near duplicates", "cut", "unsplit", "several senses", "order"]
_NEAR = 0.2  # of the mean distance between labels: among NTU's 120, thumb up and thumb down are nearer for mini
_PAIRS = 200  # the closest, that are looked at
_MORE = " and so on and on"
_MARKS = 4  # tokens that a tokenizer may set around a sentence


ADVICE: dict[WarningKind, str] = {
    "near duplicates": "the model hardly tells them apart; word them apart",
    "cut": "the rest is not read by the model; shorten it",
    "unsplit": "one word to the model; write it in several",
    "several senses": "the word alone does not say which action is meant; add what is done",
    "order": "only order or motion tells them apart, and this model does not see the order of frames",
}


@dataclass(frozen=True, kw_only=True)
class LabelWarning:
    """One thing to look at before a run; what its kind means, and what to do, stands in ADVICE.

    labels      those concerned
    message     what is odd about them
    similarity  the cosine of near duplicates, else None
    """

    kind: WarningKind
    labels: tuple[str, ...]
    message: str
    similarity: float | None = None


@dataclass(frozen=True, kw_only=True)
class LintReport:
    """All warnings, and the closest pairs of labels with their cosine, whether that is a warning or not."""

    warnings: tuple[LabelWarning, ...]
    closest: tuple[tuple[str, str, float], ...]


def lint(labels: LabelSet, prompts: PromptSet, model: Engine, *, cache: Cache | None = None) -> LintReport:
    """What is a warning about the labels in these sentences, for this model; near duplicates by the model's own eyes.

    Two labels are near duplicates when their vectors are less than a fifth as far apart as labels of the set are on
    average: an absolute threshold would fit one model and no other.
    """
    written = labels.written(prompts.wording.names)
    similarity = _similarity(labels, prompts, model, cache or Cache())
    count = len(labels)
    above = np.where(np.triu(np.ones((count, count), dtype=bool), 1), similarity, np.float32(-2))
    pairs = [divmod(int(place), count) for place in best_first(above.ravel(), min(count * (count - 1) // 2, _PAIRS))]
    warnings: list[LabelWarning] = []
    if pairs:
        mean = float((similarity.sum() - np.trace(similarity)) / (count * (count - 1)))
        for i, j in pairs:
            alike = float(similarity[i, j])
            if count > 2 and 1 - alike < _NEAR * (1 - mean):
                message = f"cosine {alike:.3f}, of all labels {mean:.3f} on average"
                warnings.append(_warning("near duplicates", labels, (i, j), message, alike))
    warnings += _cut(labels, prompts, model)
    for number, split in unsplit(written):
        message = f"reads {written[number]!r}; write {split!r}"
        warnings.append(_warning("unsplit", labels, (number,), message))
    for number, senses in several_senses(written):
        warnings.append(_warning("several senses", labels, (number,), f"may mean: {senses}"))
    if model.order_free:
        for i, j, why in told_apart_by_order(written):
            warnings.append(_warning("order", labels, (i, j), why))
    closest = tuple((labels.labels[i], labels.labels[j], float(similarity[i, j])) for i, j in pairs[:5])
    return LintReport(warnings=tuple(warnings), closest=closest)


def _similarity(labels: LabelSet, prompts: PromptSet, model: Engine, cache: Cache) -> Float32[np.ndarray, "n n"]:
    if prompts.awaits_weights or prompts.wording.over_words == "max":
        raise UsageError(
            f"with the prompts {prompts.name!r} a label has several vectors; lint its templates with a plain wording"
        )
    rows = embed_labels(model, labels, prompts, cache=cache).rows
    vectors = unit(rows.mean(0))
    return vectors @ vectors.T


def _cut(labels: LabelSet, prompts: PromptSet, model: Engine) -> list[LabelWarning]:
    """Labels with a sentence that reads the same to the tokenizer when more words follow; the first such is quoted."""
    limit = model.tokenize([_MORE * 1000]).shape[1]
    # a token stands for a byte or more: what has fewer bytes than the limit, less some marks, cannot be cut
    long = [prompt for prompt in prompts.fill(labels) if len(prompt.text.encode()) > limit - _MARKS]
    if not long:
        return []
    ids = model.tokenize([prompt.text + more for more in ("", _MORE) for prompt in long])
    same = (ids[: len(long)] == ids[len(long) :]).all(1).tolist()
    cut: dict[int, str] = {}
    for prompt, alike in zip(long, same, strict=True):
        if alike:
            cut.setdefault(prompt.label, prompt.text)
    return [
        _warning("cut", labels, (number,), f"{text[:60]!r}… reaches the model's limit of {limit} tokens")
        for number, text in cut.items()
    ]


def _warning(
    kind: WarningKind, labels: LabelSet, numbers: tuple[int, ...], message: str, similarity: float | None = None
) -> LabelWarning:
    return LabelWarning(
        kind=kind, labels=tuple(labels.labels[i] for i in numbers), message=message, similarity=similarity
    )
