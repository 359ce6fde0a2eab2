import pytest

from clipact.prompts.english import from_gerund, from_third_person, gerund, past, third_person, verbs


@pytest.mark.parametrize(
    ("verb", "does", "did"),
    [
        ("run", "runs", "ran"),
        ("ride", "rides", "rode"),
        ("carry", "carries", "carried"),
        ("play", "plays", "played"),
        ("catch", "catches", "caught"),
        ("stop", "stops", "stopped"),
        ("jump", "jumps", "jumped"),
        ("chase", "chases", "chased"),
        ("go", "goes", "went"),
        ("tattoo", "tattoos", "tattooed"),
        ("tie", "ties", "tied"),
        ("ski", "skis", "skied"),
        ("mow", "mows", "mowed"),
        ("have", "has", "had"),
    ],
)
def test_what_one_does_and_did(verb, does, did):
    assert (third_person(verb), past(verb)) == (does, did)


def test_every_form_leads_back_to_its_verb():
    assert {from_gerund()[gerund(verb)] for verb in verbs()} == verbs()
    assert {from_third_person()[third_person(verb)] for verb in verbs()} == verbs()
    assert not set(from_gerund()) & verbs()
    assert not set(from_third_person()) & verbs()
