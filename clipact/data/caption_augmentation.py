"""Rule-based augmentation of captions, so that those of photographs come nearer to the sentences of labels.

A rule that does not fit leaves the sentence as it is. English only; sentences in, sentences out.
"""

from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import product

import numpy as np

from clipact.data.caption_grammar import CLOSED, COLOURS, DETERMINERS, read_clause, split_tokens
from clipact.errors import ConfigError
from clipact.prompts.english import from_third_person, verbs

_SHADES = frozenset("light dark bright pale navy".split())  # they go with a colour, and stay without one
_NEED_THEIRS = frozenset(
    "haired headed eyed faced clad colored skinned hair eyes fur skin clothes day sky one ones".split()
)
_AN_NOT_BY_LETTER = ("uni", "eu", "use", "one")  # "a uniform", "a one-piece"


@dataclass(frozen=True, kw_only=True)
class CaptionAugmentation:
    """Probabilities of rules that rephrase captions, each where it fits.

    tense    the verb takes another form: "is running", "runs", "ran", or "running" alone
    person   who does it becomes "a person" or "someone", or "people"
    subject  who does it is left out: "running through the grass"
    colours  things lose their colours: "a boy in a shirt"

    The rules fit 73, 54, 71 and 31 of 100 training captions of Flickr8k; of 100 results of each, read one by one, one
    at most was wrong ("little girl with hair flying in air" -> "someone flying in air"). Where features of sentences
    are kept, every way to say a caption is encoded: with all four rules 9 a caption.
    """

    tense: float = 0.0
    person: float = 0.0
    subject: float = 0.0
    colours: float = 0.0

    def __post_init__(self) -> None:
        for name, probability in self._probabilities().items():
            if not 0 <= probability <= 1:
                raise ConfigError(f"caption_augmentation.{name} is {probability}; it is a probability, 0 to 1")

    def draw(self, sentence: str, *, seed: int) -> str:
        """The sentence, or another way to say it: the same for the same seed."""
        generator = np.random.default_rng(seed)
        applied = {name: bool(generator.random() < p) for name, p in self._probabilities().items()}
        ways = _rephrase(sentence, **applied)
        return ways[int(generator.integers(len(ways)))]

    def variants(self, sentence: str) -> tuple[str, ...]:
        """Everything that `draw` may make of a sentence."""
        probabilities = self._probabilities()
        switches = [[on for on, p in ((False, 1 - p), (True, p)) if p > 0] for p in probabilities.values()]
        chosen = (dict(zip(probabilities, one, strict=True)) for one in product(*switches))
        return tuple(dict.fromkeys(variant for applied in chosen for variant in _rephrase(sentence, **applied)))

    def _probabilities(self) -> dict[str, float]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _rephrase(sentence: str, *, tense: bool, person: bool, subject: bool, colours: bool) -> list[str]:
    """The ways to say a sentence when these rules are applied to it, each as likely."""
    sentence = drop_colours(sentence) if colours else sentence
    clause = read_clause(sentence)
    if clause is None:
        return [sentence]
    if subject and "participle" in clause.forms:
        return [clause.inflect("participle", subject="").strip().rstrip(" .")]
    names: list[str | None] = [None]
    if person and clause.person:
        names = ["people"] if clause.several else ["a person", "someone"]
        names = [name and name[0].upper() + name[1:] for name in names] if sentence[0].isupper() else names
    forms = sorted(clause.forms - {clause.form}) if tense and len(clause.forms) > 1 else [clause.form]
    return [clause.inflect(form, subject=name) for name in names for form in forms]


@lru_cache(1 << 16)
def drop_colours(sentence: str) -> str:
    """The sentence without the colours that stand before a noun: "a black and white dog" -> "a dog".

    It stays whole where what is left would be odd ("one dog and one dog", "one brown and one dog").
    """
    tokens = split_tokens(sentence)
    words = [token.strip().lower() for token in tokens]
    kept: list[str] = []
    nouns: list[str] = []
    i = 0
    while i < len(tokens):
        end = _colours_end(tokens, words, i)
        if end == i:
            kept.append(tokens[i])
            i += 1
            continue
        before, noun = words[i - 1] if i else "", words[end] if end < len(words) else ""
        if _goes(before, noun, words[i:end]):
            nouns.append(noun)
            if before in ("a", "an"):
                kept[-1] = kept[-1].replace(before, _article(noun)).replace(before.title(), _article(noun).title())
            if not kept:
                first = tokens[end].strip()
                tokens[end] = first[0].upper() + first[1:] if tokens[0][0].isupper() else first
        elif before in DETERMINERS and noun in ("and", "or", ","):
            return sentence
        else:
            kept += tokens[i:end]
        i = end
    return "".join(kept) if len(set(nouns)) == len(nouns) else sentence


def _colours_end(tokens: list[str], words: list[str], start: int) -> int:
    """Where a run of colours ends ("light blue", "red , white and black"); `start` when none begins there."""

    def is_colour(i: int) -> bool:
        return i < len(words) and words[i] in COLOURS and (i == 0 or tokens[i].strip().islower())  # no Red Sox

    end, i = start, start
    while True:
        i += i < len(words) and words[i] in _SHADES
        if not is_colour(i):
            return end
        end = i = i + 1
        while i < len(words) and words[i] in ("and", "or", ",", "&"):
            i += 1


def _goes(before: str, noun: str, colours: list[str]) -> bool:
    """Whether colours may go: a noun comes after them, and they are none themselves ("a boy in red runs")."""
    if not noun.replace("-", "").isalpha() or noun in CLOSED or noun in _NEED_THEIRS:
        return False
    if before == "," or noun in from_third_person():
        return False
    may_be_nouns = before in ("", "in", "wearing") or not {"blond", "blonde"}.isdisjoint(colours)
    return not (may_be_nouns and (noun in verbs() or noun.endswith("ing")))


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" and not noun.startswith(_AN_NOT_BY_LETTER) else "a"
