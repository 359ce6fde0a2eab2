"""What is doubtful about a label set by the look of its words, without a model. prompts/lint.toml has the lists.

The labels themselves are never changed here: a doubt names them and says what to do.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

from clipact.assets import asset_path
from clipact.config import load_toml, parse
from clipact.prompts.phrases import gerund, known_verbs
from clipact.prompts.set_files import set_names

_ARTICLES = frozenset({"a", "an", "the", "some"})


@dataclass(frozen=True, kw_only=True)
class _Lists:
    """prompts/lint.toml; what each list is for is said there."""

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
    senses = {gerund(verb): said for verb, said in _lists().senses.items()}
    pairs = ((number, senses.get(phrase.lower())) for number, phrase in enumerate(phrases))
    return [(number, said) for number, said in pairs if said]


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


@cache
def _lists() -> _Lists:
    return parse(_Lists, load_toml(asset_path("prompts/lint.toml")))


@cache
def _opposites() -> list[tuple[Counter[str], Counter[str]]]:
    lines = [line.partition(" / ") for line in _lists().opposites.strip().splitlines()]
    return [(Counter(one.split()), Counter(other.split())) for one, _, other in lines]


@cache
def _known_words() -> frozenset[str]:
    """Verbs, their gerunds, and every word in the sentences of the shipped sets."""
    from clipact.prompts.label_set import LabelSet

    sets = [LabelSet.load(name) for name in set_names("labels")]
    said = {word for labels in sets for phrase in labels.phrases for word in re.findall(r"[a-z]+", phrase.lower())}
    return frozenset(said | known_verbs() | set(map(gerund, known_verbs())))
