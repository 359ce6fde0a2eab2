"""Label sets: from words, from files, from what is typed; and what each says when it cannot be used."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipact.errors import ConfigError, LabelError
from clipact.prompts import LabelSet, parse_labels, phrase, set_names

SIZES = {
    "charades": 157,
    "daily-living": 24,
    "hmdb51": 51,
    "kinetics400": 400,
    "kinetics600": 600,
    "kinetics700": 700,
    "ntu120": 120,
    "sports22": 22,
    "ssv2": 174,
    "surv-fight": 2,
    "toyota-smarthome": 31,
    "ucf-crime": 14,
    "ucf101": 101,
    "ut-interaction": 6,
    "weizmann": 4,
    "wild-abnormality": 25,
}


# The first 16 hex digits of the SHA-256 of the names as published, joined by newlines.
PUBLISHED = {
    "charades": "75589ffa1ddb9be0",
    "hmdb51": "154ef596b6037121",
    "kinetics400": "a8dafb93a1204d4e",
    "kinetics600": "5d9a560f98fcfed0",
    "kinetics700": "a34c9fed41f5f9ed",
    "ntu120": "e6efef3d1a51c111",
    "ssv2": "a31a2ad624a558d6",
    "toyota-smarthome": "e29d48741cd61b72",
    "ucf-crime": "bebc37b52b74c63d",
    "ucf101": "3ec3894f84996395",
}


@pytest.fixture
def write(tmp_path):
    def write(name, text, encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_every_shipped_set_is_counted_here():
    assert set_names("labels") == sorted(SIZES)


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_shipped_sets_are_whole_and_say_where_they_are_from(name, size):
    labels = LabelSet.load(name)
    assert (labels.name, len(labels), len(set(labels.labels))) == (name, size, size)
    assert labels.title
    assert len(labels.source) > 10


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sets_are_what_their_authors_wrote(name):
    names = LabelSet.load(name).labels
    assert hashlib.sha256("\n".join(names).encode()).hexdigest()[:16] == PUBLISHED[name]


def test_the_ten_of_daily_living_come_first_and_stay():
    daily = LabelSet.load("daily-living")
    ten = daily.tagged("ten")
    assert ten.labels == daily.labels[:10]
    assert ten.phrases == (
        *("reading", "eating", "drinking", "walking", "falling down"),
        *("sitting down", "standing up", "sleeping", "using a laptop", "talking on the phone"),
    )
    assert LabelSet.load("daily-living:ten") == ten == parse_labels(["daily-living:ten"])
    with pytest.raises(LabelError, match="did you mean 'ten'"):
        daily.tagged("tem")


@pytest.mark.parametrize(
    "name", ["daily-living", "wild-abnormality", "ucf-crime", "sports22", "ut-interaction", "weizmann", "surv-fight"]
)
def test_sets_of_our_own_describe_every_label_in_words_that_no_other_label_has(name):
    labels = LabelSet.load(name)
    about = [labels.about[label] for label in labels.labels]
    assert all(more.descriptions for more in about)
    said = [words for more in about for words in (*more.synonyms, *more.descriptions)]
    assert len({words.casefold() for words in said}) == len(said)
    assert all(words[0].isupper() and words.endswith(".") for more in about for words in more.descriptions)
    assert all(phrase(words) == phrase(phrase(words)) for more in about for words in more.synonyms)


def test_abnormal_and_normal_things_can_be_told_apart_by_their_tags():
    wild = LabelSet.load("wild-abnormality")
    assert len(wild.tagged("abnormal")) + len(wild.tagged("normal")) == len(wild)
    assert wild.about["burglary"].parent == wild.about["shoplifting"].parent == wild.about["robbery"].parent == "theft"


def test_some_labels_of_a_set_keep_what_is_said_of_them():
    sports = LabelSet.load("sports22")
    two = sports.only(["motogp", "chess"])
    assert (two.name, two.labels, two.phrases) == (
        sports.name,
        ("motogp", "chess"),
        ("racing motorcycles", "playing chess"),
    )
    assert two.about == {label: sports.about[label] for label in two.labels}


def test_words_become_labels_and_phrases():
    labels = LabelSet.of(["UseLaptop", "drink"])
    assert labels.labels == ("UseLaptop", "drink")
    assert labels.phrases == ("using laptop", "drinking")
    assert LabelSet.of(["UseLaptop"], phrases=["UseLaptop"]).phrases == ("UseLaptop",)
    assert LabelSet.of_any(labels) is labels
    assert LabelSet.of_any("drink,read") == LabelSet.of_any(["drink", "read"])


def test_one_label_alone_works():
    assert LabelSet.of(["drink"]).phrases == parse_labels(["drink"]).phrases == ("drinking",)


def test_no_labels_are_an_error():
    for empty in (lambda: LabelSet.of([]), lambda: parse_labels([])):
        with pytest.raises(LabelError, match="no labels"):
            empty()


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["drink", "read", "drink"], "'drink' is there twice"),
        (["drink", "drinking"], "'drink' and 'drinking' both read 'drinking'"),
        (["UseLaptop", "use laptop"], "'UseLaptop' and 'use laptop' both read 'using laptop'"),
        (["café", "cafe\u0301"], "'café' is there twice"),
        (["TV", "tv"], "'TV' and 'tv' both read 'tv'"),
        ([f"run {i % 5}" for i in range(10)], "and 2 more"),
    ],
)
def test_labels_that_are_or_read_the_same_are_named(labels, told):
    with pytest.raises(LabelError, match=told):
        LabelSet.of(labels)


def test_a_string_is_not_taken_for_a_list_of_letters():
    with pytest.raises(LabelError, match="give a list"):
        LabelSet.of("drink")


def test_phrases_must_be_as_many_as_labels():
    with pytest.raises(LabelError, match="2 labels but 1 phrases"):
        LabelSet.of(["a", "b"], phrases=["a"])


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["drink,read"], ("drink", "read")),
        (["drink", "read, eat"], ("drink", "read", "eat")),
        (['"put down, then leave",read'], ("put down, then leave", "read")),
        (['drink, "a, b"'], ("drink", "a, b")),
        (['say "hello"'], ('say "hello"',)),
        (["喝水,读书"], ("喝水", "读书")),
    ],
)
def test_values_are_split_at_commas_by_the_rules_of_csv(values, labels):
    assert parse_labels(values).labels == labels


@pytest.mark.parametrize("value", ["", "drink,", ",drink", "drink,,read", "drink, ,read"])
def test_an_empty_label_is_an_error(value):
    with pytest.raises(LabelError, match="hold an empty one"):
        parse_labels([value])


@pytest.mark.parametrize("value", ['"drink', '"a"b,c', "drink\nread"])
def test_what_csv_cannot_split_is_an_error(value):
    with pytest.raises(LabelError, match="cannot be split"):
        parse_labels([value])


def test_a_set_s_name_stands_for_its_labels():
    assert parse_labels(["hmdb51"]) == LabelSet.load("hmdb51")
    both = parse_labels(["hmdb51,abseiling", "daily-living:ten"][:1])
    assert both.labels == (*LabelSet.load("hmdb51").labels, "abseiling")
    assert both.name == "hmdb51+own"
    assert "catch" in both.about
    with pytest.raises(LabelError, match="'drink' is there twice"):
        parse_labels(["hmdb51", "drink"])


@pytest.mark.parametrize("value", ["mine.txt", "labels/own.toml", "A.CSV"])
def test_a_file_s_name_is_not_taken_for_a_label(value):
    with pytest.raises(LabelError, match=f"name of a file: write @{value}"):
        parse_labels([value])
    assert parse_labels([f"{value},read"]).labels == (value, "read")


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        *[("kinetcs400", "kinetics400"), ("Kinetics-400", "kinetics400"), ("Daily Living", "daily-living")],
        ("Daily-Living:ten", "daily-living"),
    ],
)
def test_a_misspelt_set_is_not_taken_for_a_label(value, meant):
    with pytest.raises(LabelError, match=f"did you mean '{meant}'"):
        parse_labels([value])


def test_an_unknown_set_lists_the_nearest_and_all():
    with pytest.raises(LabelError, match=r"no label set 'hmbd51'; did you mean 'hmdb51'\? Known: charades, .*ucf101"):
        LabelSet.load("hmbd51")


def test_a_file_of_lines(write):
    path = write("mine.txt", "\ufeff# my labels\r\nput down, then leave\r\n\r\n  UseLaptop \r\n跑步", "utf-8")
    expected = ("put down, then leave", "UseLaptop", "跑步")
    assert parse_labels([f"@{path}"]).labels == LabelSet.load(path).labels == expected
    assert LabelSet.load(str(path)).name == "mine"
    assert parse_labels([f"sleep,@{path}"]).labels == ("sleep", *expected)


def test_files_that_cannot_be_used(write, tmp_path):
    for path, told in [
        (tmp_path / "none.txt", "no such file"),
        (tmp_path, "no such file"),
        (write("empty.txt", "# nothing\n\n"), "holds no labels"),
        (write("wide.txt", "drink\n", "utf-16"), "not UTF-8"),
        (write("hidden.txt", "dr\u200bink\n"), r"U\+200B"),
    ]:
        with pytest.raises(LabelError, match=told):
            parse_labels([f"@{path}"])


def test_a_label_file_of_one_s_own(write):
    text = 'name = "mine"\nlabels = ["drink", "UseLaptop"]\n[about]\n"drink".phrase = "drinking  from a cup"\n'
    labels = LabelSet.load(write("mine.toml", text))
    tags = 'drink.tags = ["wet  one"]'
    part = f"{write('part.toml', text + tags)}:wet one"
    assert LabelSet.load(part).labels == parse_labels([f"@{part}"]).labels == ("drink",)
    with pytest.raises(LabelError, match="tagged 'dry'; known: wet one"):
        LabelSet.load(part.replace("wet one", "dry"))
    assert labels.phrases == ("drinking from a cup", "using laptop")
    assert labels.about["drink"].phrase == "drinking from a cup"
    with pytest.raises(LabelError, match="is empty"):
        LabelSet.load(write("bare.toml", text.replace("drinking  from a cup", " ")))
    with pytest.raises(LabelError, match="did you mean 'drink'"):
        LabelSet.load(write("wrong.toml", text.replace('"drink".', '"drin".')))
    with pytest.raises(ConfigError, match=r"odd\.toml: unknown key 'label'; did you mean 'labels'"):
        LabelSet.load(write("odd.toml", text.replace("labels", "label")))
    with pytest.raises(ConfigError, match="not valid TOML"):
        LabelSet.load(write("broken.toml", "name = "))


def test_ten_thousand_labels():
    words = [f"carry box {i}" for i in range(10_000)]
    labels = parse_labels([",".join(words)])
    assert labels.labels == tuple(words)
    assert labels.phrases[-1] == "carrying box 9999"


@settings(deadline=None)
@given(st.lists(st.text("abcdefgh ,\"'éß跑", min_size=1, max_size=12), min_size=1, max_size=6))
def test_what_can_be_a_label_set_can_be_typed(words):
    try:
        labels = LabelSet.of(words)
    except LabelError:
        return
    typed = ",".join('"' + label.replace('"', '""') + '"' for label in labels.labels)
    assert parse_labels([typed]) == labels
