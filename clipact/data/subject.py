"""Who does something in a caption, read from its first words: nouns known by name, and what stands before them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from clipact.data.caption_words import ANIMALS, CLOSED, COLOURS, DETERMINERS, DOERS, GROUPS, MANY_OF, ONE, PLURAL

Number = Literal["one", "many", "either"]
"""Of a subject, "either" for "a group of men"; of a verb, one of the other two."""


@dataclass(frozen=True)
class Subject:
    """The noun phrase that a sentence begins with: where it ends, and who it names."""

    end: int
    number: Number
    person: bool


def read_subject(words: Sequence[str]) -> Subject | None:
    """ "a boy", "two brown dogs", "a group of men", "a man and a woman"."""
    first = _read_noun_phrase(words, 0)
    if first is None or words[first.end : first.end + 1] != ["and"]:
        return first
    second = _read_noun_phrase(words, first.end + 1)
    return second and Subject(second.end, "many", first.person and second.person)


def _read_noun_phrase(words: Sequence[str], start: int) -> Subject | None:
    several, of_many = False, False
    for i in range(start, min(start + 8, len(words))):
        word, before, after = words[i], words[i - 1] if i > start else "", words[i + 1] if i + 1 < len(words) else ""
        if word in MANY_OF and after == "of":
            of_many = True
        elif word in DOERS and after not in DOERS:
            one = word in ONE
            if after == "of" or not (after.isalpha() or not after) or (one and (several or of_many)):
                return None
            number: Number = "either" if of_many or word in GROUPS else "one" if one else "many"
            return Subject(i + 1, number, word not in ANIMALS)
        elif word in PLURAL:
            several = True
        elif word == "of" and before in MANY_OF:
            several = False
        elif (word in DETERMINERS and (before in ("", "of") or before in DETERMINERS)) or (
            word == "and" and before in COLOURS
        ):
            continue
        elif word in CLOSED or not word.replace("-", "").isalpha():
            return None
    return None
