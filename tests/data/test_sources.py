from pathlib import Path

import pytest

from clipact.data.fingerprint import file_digest
from clipact.data.sources import SourceConfig, read_sources, table_paths, trained_sets
from clipact.errors import ConfigError, DataError, ManifestError
from clipact.prompts import LabelSet, PromptSet
from tests.data.drawing import write_manifest

PROTOCOL = """
name = "games"
title = "Games"
metric = "top_1"
source = "drawn"
[data]
set = "games"
root = "games"
split = "test"
[[data.parts]]
name = "one"
list = "one.csv"
sha256 = "{one}"
count = 1
[[data.parts]]
name = "two"
manifest = "two.csv"
[words]
set = "sports22"
templates = "single"
"""
ROWS = [("a.png", "badminton", "train"), ("b.png", "chess", "train"), ("c.png", "chess", "test")]


def rows(*lines):
    return [{"path": path, "label": label, "split": split} for path, label, split in lines]


@pytest.fixture
def folder(tmp_path):
    """A protocol beside its first list, and the data folder with its second."""
    one = write_manifest(tmp_path / "protocols/one.csv", *rows(*ROWS))
    write_manifest(tmp_path / "data/two.csv", *rows(ROWS[1], ("d.png", "motogp", "train"), ROWS[2]))
    (tmp_path / "protocols/games.toml").write_text(PROTOCOL.format(one=file_digest(one)))
    return tmp_path


def read(folder, **keys):
    return read_sources([SourceConfig(**keys)], folder / "data")


def test_a_protocol_says_its_labels_as_an_evaluation_does(folder):
    protocol = str(folder / "protocols/games.toml")
    examples = read(folder, protocol=protocol)
    assert [(one.source, one.file, one.label) for one in examples] == [
        ("games", "a.png", "badminton"),
        ("games", "b.png", "chess"),  # stands in both lists
        ("games", "d.png", "motogp"),
    ]
    assert examples[0].path == str(folder / "data/games/a.png")
    labels = LabelSet.load("sports22")
    for prompts, given in (("single", None), ("action", "action")):
        texts, numbers = PromptSet.load(prompts).sentences(labels)
        for example in read(folder, protocol=protocol, prompts=given):
            own = labels.labels.index(example.label)
            assert example.sentences == tuple(text for text, n in zip(texts, numbers, strict=True) if n == own)
    assert any("shuttlecock" in text for text in read(folder, protocol=protocol, prompts="action")[0].sentences)
    assert [one.file for one in read(folder, protocol=protocol, split="test")] == ["c.png"]
    assert [
        one.sentences for one in read_sources([SourceConfig(protocol=protocol)], folder / "data", as_labels=True)
    ] == [
        ("badminton",),
        ("chess",),
        ("motogp",),
    ]


def test_a_table_may_say_more_of_its_labels_and_a_label_is_one_whatever_is_said(folder):
    plain = read(folder, manifest=Path("two.csv"))
    said = read(folder, manifest=Path("two.csv"), labels="sports22")
    assert not any("motorcycles" in text for text in plain[1].sentences)
    assert said[1].sentences[0] == "A person is racing motorcycles."
    assert len(said[0].sentences) > len(plain[0].sentences) == 6
    carded = read(folder, protocol=str(folder / "protocols/games.toml"))
    assert [one.label_id for one in plain] == [one.label_id for one in said] == [one.label_id for one in carded[1:]]
    assert {one.source for one in said} == {"two.csv"}
    write_manifest(folder / "data/more.csv", *rows(*ROWS, ("e.png", "chesss", "train")))
    with pytest.raises(ManifestError, match=r"more\.csv, line 5: label 'chesss' is none of sports22's; did you mean"):
        read(folder, manifest=Path("more.csv"), labels="sports22")
    write_manifest(folder / "data/said.csv", {"path": "a.png", "caption": "a game"})
    with pytest.raises(ConfigError, match=r"said\.csv has captions: leave labels out"):
        read(folder, manifest=Path("said.csv"), labels="sports22")


def test_where_its_tables_are_and_what_a_model_must_say_of_it(folder):
    protocol, data = str(folder / "protocols/games.toml"), folder / "data"
    assert table_paths(SourceConfig(protocol=protocol), data) == [
        (folder / "protocols/one.csv", data / "games"),
        (data / "two.csv", data / "games"),
    ]
    assert table_paths(SourceConfig(manifest=Path("two.csv")), data) == [(data / "two.csv", None)]
    shipped = [
        SourceConfig(protocol="sports22"),
        SourceConfig(manifest=Path("two.csv")),
        SourceConfig(protocol="flickr8k", split="unassigned"),
    ]
    assert trained_sets(shipped) == ("sports22 train", "flickr8k unassigned")


def test_a_list_that_is_not_the_cards_is_refused(folder):
    write_manifest(folder / "protocols/one.csv", *rows(*ROWS[:1]))
    with pytest.raises(DataError, match=r"not those of protocol games: one\.csv has the sha256"):
        read(folder, protocol=str(folder / "protocols/games.toml"))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({}, "a manifest or a protocol; give one of the two"),
        ({"manifest": Path("m.csv"), "protocol": "sports22"}, "give one of the two"),
        ({"protocol": "sports22", "root": Path("x")}, "the protocol 'sports22', which says root and labels"),
        ({"protocol": "sports22", "labels": "sports22"}, "leave these out"),
    ],
)
def test_what_goes_ill_together_is_refused(keys, says):
    with pytest.raises(ConfigError, match=says):
        SourceConfig(**keys)


def test_labels_that_read_the_same_are_refused_unless_a_label_set_words_them_apart(tmp_path):
    write_manifest(tmp_path / "m.csv", *rows(("a.png", "drink", "train"), ("b.png", "drinking", "test")))
    with pytest.raises(ManifestError, match="m.csv: 'drink' and 'drinking' both read 'drinking'"):
        read_sources([SourceConfig(manifest=Path("m.csv"))], tmp_path)
    words = 'name = "apart"\nlabels = ["drink", "drinking"]\n[about.drink]\nphrase = "taking a sip"\n'
    (tmp_path / "apart.toml").write_text(words)
    source = SourceConfig(manifest=Path("m.csv"), labels=str(tmp_path / "apart.toml"), prompts="single")
    (example,) = read_sources([source], tmp_path)
    assert "taking a sip" in example.sentences[0]
