"""A label as people type it becomes the phrase that a sentence needs: `UseLaptop` -> "using laptop".

Plain spelling rules, with the verbs and the exceptions in prompts/phrases.toml. No grammar is guessed: a label whose
first word is no known verb stays as it is, unless it is listed as a whole (games and instruments, which are played).
English only; other languages pass through.
"""

import re
from dataclasses import dataclass
from functools import cache

from clipact.config import asset_path, load_toml, parse

# Verbs of captions that no label of an action begins with.
_MORE = """
admire appear assist backpack bear become bound converse dangle dash display emerge face frown glance grimace handle
hover land maneuver navigate need overlook participate peer perch pounce prance scale seem soar socialize speed stare
straddle strain stroll surround trail wag want
"""

_PASTS = dict(
    pair.split(":")
    for pair in """
    bear:bore beat:beat become:became begin:began bend:bent bite:bit blow:blew break:broke bring:brought build:built
    buy:bought catch:caught cling:clung come:came creep:crept cut:cut deal:dealt dig:dug do:did draw:drew drink:drank
    drive:drove eat:ate fall:fell feed:fed feel:felt fight:fought find:found flee:fled fling:flung fly:flew
    forget:forgot get:got give:gave go:went grind:ground grow:grew hang:hung have:had hear:heard hide:hid hit:hit
    hold:held hurt:hurt keep:kept kneel:knelt know:knew lay:laid lead:led leave:left let:let lie:lay light:lit
    lose:lost make:made meet:met pay:paid put:put read:read ride:rode ring:rang rise:rose run:ran saw:sawed say:said
    see:saw sell:sold send:sent set:set shake:shook shine:shone shoot:shot show:showed sing:sang sit:sat sleep:slept
    slide:slid speak:spoke speed:sped spin:spun spit:spat split:split spread:spread stand:stood steal:stole
    stick:stuck strike:struck sweep:swept swim:swam swing:swung take:took teach:taught tear:tore tell:told
    think:thought throw:threw tread:trod wake:woke wear:wore weave:wove weep:wept win:won wind:wound wring:wrung
    write:wrote
    """.split()
)


def third_person(verb: str) -> str:
    """What one does: run, reach, carry -> runs, reaches, carries."""
    if verb == "have":
        return "has"
    if verb.endswith(("s", "x", "z", "ch", "sh")) or (verb.endswith("o") and not verb.endswith("oo")):
        return verb + "es"
    return verb[:-1] + "ies" if _ends_in_y(verb) else verb + "s"


def past(verb: str) -> str:
    """What one did: run, reach, carry, stop -> ran, reached, carried, stopped."""
    if verb in _PASTS:
        return _PASTS[verb]
    if verb.endswith("e"):
        return verb + "d"
    # The gerund knows which verbs double their last letter.
    return verb[:-1] + "ied" if _ends_in_y(verb) else gerund(verb).removesuffix("ing") + "ed"


@cache
def verbs() -> frozenset[str]:
    """Every verb that is known, in its base form; not "be"."""
    return (known_verbs() | frozenset(_MORE.split())) - {"be"}


@cache
def from_gerund() -> dict[str, str]:
    """The verb of each -ing form."""
    return {gerund(verb): verb for verb in sorted(verbs())}


@cache
def from_third_person() -> dict[str, str]:
    """The verb of each form in -s."""
    return {third_person(verb): verb for verb in sorted(verbs())}


def _ends_in_y(verb: str) -> bool:
    return verb.endswith("y") and verb[-2:-1] not in "aeiou"


_SLASH = re.compile(r"(?<=[^\W\d_]{2})/(?=[^\W\d_]{2})")
# Consonants, one vowel, one consonant: the last is doubled. w, x and y never are, and qu counts as a consonant.
_DOUBLES = re.compile(r"(?:[^aeiou]|qu)*[aeiou][^aeiouwxy]")
_JOINTS = frozenset({"and", "or", "then"})


@dataclass(frozen=True, kw_only=True)
class _Words:
    """prompts/phrases.toml; what each list is for is said there."""

    verbs: str
    nouns_too: str
    small_words: str
    takes_gerunds: str
    things_in_ing: str
    particles: str
    played: tuple[str, ...]
    gerunds: dict[str, str]
    phrases: dict[str, str]


def phrase(label: str) -> str:
    """The phrase for a template's hole: words split, the leading verb a gerund; a phrase is its own phrase."""
    words = split_words(label)
    whole = " ".join(words).lower().replace("-", " ")
    if whole in _words().played:
        return f"playing {whole}"
    return _words().phrases.get(whole) or " ".join(_with_gerunds(words))


def split_words(label: str) -> list[str]:
    """The words of a label: `brush_hair`, `BrushHair` and "Brush hair" alike; acronyms keep their capitals.

    A slash between words reads "or". Only a label without spaces is split at capitals, so "open YouTube" is left alone.
    """
    label = _SLASH.sub(" or ", label)
    words = label.split()
    if len(words) == 1:
        words = [part for part in label.strip().split("_") if part] or words
        if len(words) == 1:
            words = _split_at_capitals(words[0])
        return [_lowered(word) for word in words]
    if all(word.istitle() for word in words):
        return [_lowered(word) for word in words]
    return [_lowered(word) for word in words[:1]] + words[1:]


def gerund(verb: str) -> str:
    """The -ing form of a verb in the base form: drink, ride, sit, lie -> drinking, riding, sitting, lying."""
    irregular = _words().gerunds.get(verb)
    if irregular:
        return irregular
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return verb[:-1] + "ing"
    if _DOUBLES.fullmatch(verb):
        return verb + verb[-1] + "ing"
    return verb + "ing"


def known_verbs() -> frozenset[str]:
    """Every verb that the rules know, in its base form."""
    return _word_set("verbs") | _word_set("nouns_too")


@cache
def _words() -> _Words:
    return parse(_Words, load_toml(asset_path("prompts/phrases.toml")))


@cache
def _word_set(name: str) -> frozenset[str]:
    return frozenset(getattr(_words(), name).split())


@cache
def _gerunds() -> frozenset[str]:
    return frozenset(map(gerund, known_verbs()))


def _split_at_capitals(word: str) -> list[str]:
    """`WatchTVNews` -> Watch, TV, News; one small letter at the start stays with its capital (iPhone)."""
    starts = [0]
    for i in range(2, len(word)):
        before, here, after = word[i - 1], word[i], word[i + 1 : i + 2]
        if here.isupper() and (before.islower() or (before.isupper() and after.islower())):
            starts.append(i)
    return [word[start:end] for start, end in zip(starts, [*starts[1:], len(word)], strict=True)]


def _lowered(word: str) -> str:
    """The word without its capital, unless it is an acronym."""
    return word.lower() if word == "A" or (word[:1].isupper() and word[1:].islower()) else word


def _is_verb(word: str, next_word: str) -> bool:
    if word in _word_set("nouns_too"):
        return not next_word or next_word in _word_set("small_words")
    if word not in _word_set("verbs"):
        return False
    in_compound = next_word in _gerunds() and next_word not in _word_set("things_in_ing")
    return not in_compound or word in _word_set("takes_gerunds")


def _with_gerunds(words: list[str]) -> list[str]:
    """The words, with the first verb and those that a comma, and, or, then join to it as gerunds."""
    bare = [word.lower().strip(",;") for word in words]
    done: list[str] = []
    joined = True  # only verbs, their particles and joints so far
    for i, word in enumerate(words):
        next_word = bare[i + 1] if i + 1 < len(words) else ""
        after_joint = i > 0 and (bare[i - 1] in _JOINTS or words[i - 1].endswith(","))
        expected = i == 0 or bare[i - 1] == "then" or (joined and after_joint)
        if expected and _is_verb(bare[i], next_word):
            done.append(word.lower().replace(bare[i], gerund(bare[i])))
        else:
            joined = joined and (bare[i] in _JOINTS or bare[i] in _word_set("particles"))
            done.append(word)
    return done
