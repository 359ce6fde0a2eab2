"""The forms of English verbs, by spelling rules and a table: drink -> drinks, drank; and "drinking" back to drink.

Known are the verbs of `clipact.prompts.phrases` and some that captions have. What is no form of these is no verb here.
"""

from functools import cache

from clipact.prompts.phrases import gerund, known_verbs

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
