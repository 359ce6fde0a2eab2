"""The words that the rules for captions know by name: the closed classes of English, colours, people and animals."""

from clipact.prompts.verb_forms import third_person

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


def _plural(noun: str) -> str:
    uneven = {"person": "people", "child": "children"}
    return uneven.get(noun) or (noun[:-2] + "en" if noun.endswith("man") else third_person(noun))


# Who does something: one, several, or a group that is taken for one or several. Animals are no persons.
ONE = _PEOPLE | _ANIMALS
MANY = frozenset(map(_plural, ONE - {"someone"}))
GROUPS = frozenset("family crowd couple team audience".split())
DOERS = ONE | MANY | GROUPS
ANIMALS = _ANIMALS | frozenset(map(_plural, _ANIMALS))
MANY_OF = frozenset("group groups crowd bunch couple pair line row team number".split())
"""Before "of", a group of whatever comes: "a couple of dogs"."""
