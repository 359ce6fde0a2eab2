"""Captions read as far as plain rules can: who does something, what, and the rest.

"A boy in red is running and jumping ." is the subject "A boy in red", the verbs run and jump, and what stands behind
each. English only. What the rules are not sure of they do not read: most sentences that begin with no person or animal,
and those in which another finite verb is about.
"""

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from clipact.prompts.english import from_gerund, from_third_person, gerund, past, third_person, verbs

PLURAL = frozenset("two three four five six seven eight nine ten some several many few both all these those".split())
_POSSESSIVE = frozenset("his her its their my our your".split())
DETERMINERS = PLURAL | _POSSESSIVE | set("a an the one this another each no".split())
PREPOSITIONS = frozenset(
    """about above across after against along alongside among around at atop before behind below beneath beside
    between beyond by down during for from in inside into like near next of off on onto out outside over
    past through throughout to together toward towards under underneath up upon with within without away
    back forward""".split()
)
SUBORDINATE = frozenset("while whilst as who whom whose that which what how when where because if until so but".split())
FINITE = frozenset("is are was were has have had can could will would do does did am".split())
PRONOUNS = frozenset("he she it they him them himself herself itself themselves there each other".split())
CLOSED = DETERMINERS | PREPOSITIONS | SUBORDINATE | FINITE | PRONOUNS | {"and", "or", "not", "then", "also", "very"}
"""Words that are no noun, adjective or verb of action."""

COLOURS = frozenset(
    """black white brown red blue green yellow orange pink purple grey gray tan beige blond blonde maroon
    turquoise colorful colourful multicolored""".split()
)

_PEOPLE = frozenset(
    """man woman boy girl person child kid guy lady baby toddler adult teenager youth infant male female
    gentleman player skateboarder snowboarder skier surfer biker cyclist bicyclist bicycler motorcyclist
    climber hiker rider skater swimmer runner racer rollerblader wakeboarder waterskier kayaker diver
    wrestler dancer athlete gymnast worker policeman fireman fisherman cowboy bride mother father friend
    student jumper jogger golfer goalie performer musician guitarist artist photographer tourist pedestrian
    soldier officer clown backpacker cheerleader bowler someone""".split()
)
_ANIMALS = frozenset(
    """dog puppy cat horse bird greyhound poodle dalmatian beagle terrier collie retriever shepherd lab
    labrador dachshund husky bulldog pitbull seagull duck swan squirrel monkey cow goat animal doberman""".split()
)
_MANY_PEOPLE = frozenset(
    """men women boys girls people children kids guys ladies babies toddlers adults teenagers youths infants males
    females gentlemen players skateboarders snowboarders skiers surfers bikers cyclists bicyclists bicyclers
    motorcyclists climbers hikers riders skaters swimmers runners racers rollerbladers wakeboarders waterskiers
    kayakers divers wrestlers dancers athletes gymnasts workers policemen firemen fishermen cowboys brides mothers
    fathers friends students jumpers joggers golfers goalies performers musicians guitarists artists photographers
    tourists pedestrians soldiers officers clowns backpackers cheerleaders bowlers""".split()
)
_MANY_ANIMALS = frozenset(
    """dogs puppies cats horses birds greyhounds poodles dalmatians beagles terriers collies retrievers shepherds labs
    labradors dachshunds huskies bulldogs pitbulls seagulls ducks swans squirrels monkeys cows goats animals
    dobermen""".split()
)

# Who does something: one, several, or a group that is taken for one or several. Animals are no persons.
ONE = _PEOPLE | _ANIMALS
MANY = _MANY_PEOPLE | _MANY_ANIMALS
GROUPS = frozenset("family crowd couple team audience".split())
DOERS = ONE | MANY | GROUPS
ANIMALS = _ANIMALS | _MANY_ANIMALS
MANY_OF = frozenset("group groups crowd bunch couple pair line row team number".split())
"""Before "of", a group of whatever comes: "a couple of dogs"."""


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


Form = Literal["participle", "progressive", "simple", "past"]
"""Of a verb: "running", "is running", "runs", "ran"."""

_TOKEN = re.compile(r"\s*(?:\w+(?:['’-]\w+)*|[^\w\s])")
_CLAUSE_ENDS = DOERS | SUBORDINATE | FINITE | PRONOUNS
_ARTICLES = (["a"], ["an"], ["the"])
_NO_NOUNS = CLOSED | COLOURS
_ING = ("participle", "progressive")
_THINGS = frozenset("building clothing crossing drawing landing meeting opening painting parking railing".split())
_STATIVE = frozenset("have see hear know like need own seem want appear become".split())


@dataclass(frozen=True)
class Clause:
    """A caption that says who does something.

    subject  "A boy in red"
    person   whether a person does it, or people and nobody else
    several  whether more than one does it
    plural   whether the verb says so: "a group of men is" does not
    form     of the verbs as they were read
    verbs    in the base form: the main verb, then those that "and" joins to it
    behind   what stands behind each verb: as many
    forms    in which it can be said without a mistake, its own included
    """

    subject: str
    person: bool
    several: bool
    plural: bool
    form: Form
    verbs: tuple[str, ...]
    behind: tuple[str, ...]
    forms: frozenset[Form]

    def inflect(self, form: Form, *, subject: str | None = None) -> str:
        """The sentence with its verbs in that form, and another subject for as many if one is given."""
        many = self.plural if subject is None else self.several
        inflected = [_inflected(verb, form, many=many) for verb in self.verbs]
        auxiliary = (" are" if many else " is") if form == "progressive" else ""
        said = "".join(f" {verb}{behind}" for verb, behind in zip(inflected, self.behind, strict=True))
        return f"{self.subject if subject is None else subject}{auxiliary}{said}"


def split_tokens(sentence: str) -> list[str]:
    """Words and punctuation, each with the space before it: joined, they are the sentence."""
    return _TOKEN.findall(sentence)


@lru_cache(1 << 16)
def read_clause(sentence: str) -> Clause | None:
    """The sentence taken apart; None when it does not say who does what, or not as the rules know it."""
    tokens = split_tokens(sentence)
    words = [token.strip().lower() for token in tokens]
    if (subject := read_subject(words)) is None or (verb := _find_verb(words, subject)) is None:
        return None
    joined = _joined_verbs(words, verb)
    places = [verb.at, *(joined or ())]
    ends = [*places[1:], len(tokens)]
    return Clause(
        subject="".join(tokens[: verb.at - (verb.form == "progressive")]),
        person=subject.person,
        several=subject.number != "one",
        plural=verb.number == "many",
        form=verb.form,
        verbs=tuple(_verb_of(words[place]) for place in places),
        behind=tuple("".join(tokens[place + 1 : end]) for place, end in zip(places, ends, strict=True)),
        forms=frozenset(_possible_forms(words, verb, joined)),
    )


@dataclass(frozen=True)
class _Verb:
    """The main verb: its place, and how it stands there."""

    at: int
    form: Form
    number: Number


def _find_verb(words: Sequence[str], subject: Subject) -> _Verb | None:
    """The first verb of the subject, whose own additions ("in red", "wearing a hat") are passed by."""
    participle, doubtful = None, False
    for i in range(subject.end, min(subject.end + 12, len(words))):
        word, after = words[i], words[i + 1] if i + 1 < len(words) else ""
        if word in ("is", "are"):
            number: Number = "one" if word == "is" else "many"
            going_to = words[i + 1 : i + 3] == ["going", "to"]
            fits = after in from_gerund() and subject.number in (number, "either") and not going_to
            return _Verb(i + 1, "progressive", number) if fits else None
        if _ends_subject(word, after):
            break
        beside = i == subject.end
        if _could_be_finite(words, i, subject):
            stative = _verb_of(word) in _STATIVE or (word.startswith("look") and after == "like")
            sure = not stative and (beside or _before_no_noun(words, i, end=word not in verbs()))
            return _Verb(i, "simple", "many" if word in verbs() else "one") if sure else None
        if beside and not (word in PREPOSITIONS or word.endswith(("ing", "ed"))):
            return None
        if participle is None and word in from_gerund() and word not in _THINGS and _after_noun(words, i):
            doubtful |= not (beside or _before_no_noun(words, i, end=True))
            participle = i
    if participle is None or doubtful or _finite_after(words, participle + 1, bases=subject.number != "one"):
        return None
    return _Verb(participle, "participle", "one" if subject.number == "one" else "many")


def _ends_subject(word: str, after: str) -> bool:
    """Whether no verb is looked for beyond this word: others come into play there."""
    return word in _CLAUSE_ENDS or not word.replace("-", "").isalpha() or (word == "and" and after in DETERMINERS)


def _could_be_finite(words: Sequence[str], i: int, subject: Subject) -> bool:
    """Whether a word is a verb in the simple present after a noun; a base form ("swing") must be after a plural."""
    if words[i] in from_third_person() and subject.number != "many":
        # "A girl in red dresses" does so; "a crowd in red dresses" wears them.
        return _after_noun(words, i) and (subject.number == "one" or words[i - 1] not in COLOURS)
    after_many = i == subject.end or (_after_noun(words, i) and words[i - 1].endswith("s"))
    return words[i] in verbs() and subject.number != "one" and after_many


def _after_noun(words: Sequence[str], i: int) -> bool:
    """Whether a noun may stand before a word; a colour is one in "a boy in red"."""
    before = words[i - 1]
    if before in COLOURS:
        return words[i - 2] in ("in", "wearing", "and")
    return before not in CLOSED and not before.endswith("ing")


def _before_no_noun(words: Sequence[str], i: int, *, end: bool) -> bool:
    """Whether what comes next is no noun; with `end` it may be the end."""
    after = words[i + 1] if i + 1 < len(words) else "."
    return after in _NO_NOUNS or after.endswith("ly") or (end and after == ".")


def _finite_after(
    words: Sequence[str], start: int, *, bases: bool, through: bool = False, but: Sequence[int] = ()
) -> bool:
    """Whether a finite verb may come, besides those at `but`; with `bases` it may be one in the base form.

    `through` looks beyond "while", "as", "who" and their like, too: only a participle does not count there.
    """
    for i in range(start, len(words)):
        if words[i] in SUBORDINATE and (not through or not words[i + 1 : i + 2] or not words[i + 1].endswith("ing")):
            return through
        sure = _after_noun(words, i) or words[i - 1] in ("and", "or") or words[i + 1 : i + 2] in _ARTICLES
        third = words[i] in from_third_person() and sure
        base = bases and words[i] in verbs() and _after_noun(words, i) and _before_no_noun(words, i, end=False)
        if i not in but and (words[i] in FINITE or third or base):
            return True
    return False


def _joined_verbs(words: Sequence[str], verb: _Verb) -> tuple[int, ...] | None:
    """Where the verbs stand that go with the main one ("is running and jumping"); None when that is not sure."""
    places: list[int] = []
    ing = verb.form in _ING
    alike = from_gerund() if ing else from_third_person() if verb.number == "one" else verbs()
    another_subject = another_verb = False
    for i in range(verb.at + 1, len(words)):
        word, before = words[i], words[i - 1]
        if word in SUBORDINATE:
            break
        another_subject |= before == "and" and word in DETERMINERS
        if word in CLOSED or word in _THINGS or not (word in alike or (ing and word.endswith("ing"))):
            continue
        beside = i == [verb.at, *places][-1] + 2
        # "Running , jumping and playing" is a list; "swimming , wearing a cap" is none.
        listed = before == "," and beside and (not ing or _joins(words[i:], alike))
        if before in ("and", "or", "then") or listed:
            if another_verb or word not in alike or not (ing or beside or _before_no_noun(words, i, end=False)):
                return None
            places.append(i)
        elif another_subject if ing else before == ",":
            return None
        else:
            another_verb |= before not in _NO_NOUNS
    return tuple(places)


def _joins(words: Sequence[str], alike: Container[str]) -> bool:
    return any(one in ("and", "or") and other in alike for one, other in pairwise(words))


def _possible_forms(words: Sequence[str], verb: _Verb, joined: tuple[int, ...] | None) -> Iterator[Form]:
    yield verb.form
    but, start = joined or (), verb.at + 1
    if joined is None and verb.form not in _ING:
        return
    yield "progressive"
    if not _finite_after(words, start, bases=verb.number == "many", but=but):
        yield "participle"
    if joined is not None:
        yield "simple"
        if not _finite_after(words, start, bases=True, through=True, but=but):
            yield "past"


def _verb_of(word: str) -> str:
    return from_gerund().get(word) or from_third_person().get(word) or word


def _inflected(verb: str, form: Form, *, many: bool) -> str:
    if form == "past":
        return past(verb)
    if form == "simple":
        return verb if many else third_person(verb)
    return gerund(verb)
