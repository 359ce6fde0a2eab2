"""Doubts about words: each kind found where it is, and not where it is not."""

from dataclasses import replace

import pytest
import torch

from clipact.cache import Cache
from clipact.config import asset_path
from clipact.errors import UsageError
from clipact.models.dual_encoder import DualEncoder
from clipact.models.towers.text import BertText
from clipact.models.towers.tower import Head
from clipact.models.zoo import Model
from clipact.prompts import LabelDetails, LabelSet, PromptSet
from clipact.studies import lint
from clipact.studies.lint import several_senses, told_apart_by_order, unsplit
from tests.tiny import TinyText, TinyVisual


def test_names_that_are_stuck_together():
    phrases = ["Readbook", "cutbread", "ApplyEyeMakeup", "Cook.Cut", "brush_hair", "reading a book", "skydiving", "TV"]
    assert unsplit(phrases) == [
        (0, "read book"),
        (1, "cut bread"),
        (2, "apply eye makeup"),
        (3, "cook cut"),
        (4, "brush hair"),
    ]


def test_verbs_alone_with_several_senses():
    found = several_senses(["shooting", "shooting a gun", "drinking", "Waving"])
    assert [number for number, _ in found] == [0, 3]
    assert "filming" in found[0][1]


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ("putting on a hat", "taking off a hat", "putting on / taking off"),
        ("picking something up", "putting something down", "putting down / picking up"),
        ("opening the door", "closing a door", "opening / closing"),
        ("pulling something from left to right", "pulling something from right to left", "the order of the words"),
        ("sitting down", "standing up", "sitting down / standing up"),
        ("moving up", "moving down", "up / down"),
    ],
)
def test_pairs_that_only_order_tells_apart(one, other, apart):
    ((i, j, why),) = told_apart_by_order([one, "drinking", other])
    assert (i, j, why) == (0, 2, apart)


def test_other_pairs_are_left_alone():
    assert told_apart_by_order(["opening a door", "opening the door"]) == []
    assert told_apart_by_order(["putting on a hat", "taking off a coat", "drinking tea", "opening a box"]) == []


class _Short(TinyText):
    def tokenize(self, sentences):
        return super().tokenize([sentence.encode()[:20].decode() for sentence in sentences])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model(name="t", encoder=DualEncoder(TinyVisual(), _Short()).eval(), key="0" * 64, trained_on=())


def test_all_kinds_with_a_model(model, tmp_path):
    labels = LabelSet.of(["shoot", "put on hat", "take off hat", "Readbook", "drink from a very large bottle", "x"])
    found = lint(labels, PromptSet.load("bare"), model, cache=Cache(tmp_path))
    told = {(warning.kind, warning.labels) for warning in found.warnings if warning.kind != "near duplicates"}
    assert told == {
        ("several senses", ("shoot",)),
        ("order", ("put on hat", "take off hat")),
        ("unsplit", ("Readbook",)),
        ("cut", ("drink from a very large bottle",)),
    }
    assert len(found.closest) == 5
    assert [pair[2] for pair in found.closest] == sorted((pair[2] for pair in found.closest), reverse=True)


def test_every_sentence_of_every_label_is_looked_at(model, tmp_path):
    labels = LabelSet.of([f"{number:03} things in a very long row" for number in range(80)] + ["short"])
    found = lint(labels, PromptSet.of(["{}", "{} indeed"]), model, cache=Cache(tmp_path))
    cut = [warning for warning in found.warnings if warning.kind == "cut"]
    assert [warning.labels for warning in cut] == [(label,) for label in labels.labels[:80]]
    assert "in a very long row" in cut[0].message


def test_what_is_cut_is_known_by_the_real_tokenizer(tmp_path):
    text = BertText(
        BertText.Config(width=8, layers=1, heads=1, hidden=8, head=Head.Config(dim=6)),
        asset_path("mini/tokenizer.json"),
    )
    encoder = DualEncoder(TinyVisual(), text).eval()
    fits, cut = (
        "read a book " * 41 + "x",
        " ".join(["read a very long newspaper"] * 40),
    )  # 126 and 200 words, and two marks
    labels = LabelSet.of(["drink", fits, cut])
    model = Model(name="t", encoder=encoder, key="1" * 64, trained_on=())
    found = lint(labels, PromptSet.load("bare"), model, cache=Cache(tmp_path))
    (warning,) = [warning for warning in found.warnings if warning.kind == "cut"]
    assert (warning.labels, "limit of 128 tokens" in warning.message) == ((labels.labels[2],), True)
    described = replace(labels, about={"drink": LabelDetails(phrase="drink", descriptions=("x" * 900, "a " * 130))})
    wording = replace(PromptSet.load("bare").wording, words=("phrase", "descriptions"))
    found = lint(described, replace(PromptSet.load("bare"), wording=wording), model, cache=Cache(tmp_path))
    assert ("drink",) in [
        warning.labels for warning in found.warnings if warning.kind == "cut"
    ]  # by the shorter of the two


def test_order_is_no_matter_for_a_model_that_sees_it(model, tmp_path):
    model.encoder.visual.order_free = False
    labels = LabelSet.of(["put on hat", "take off hat"])
    assert not lint(labels, PromptSet.load("bare"), model, cache=Cache(tmp_path)).warnings


def test_near_duplicates_are_the_pairs_that_the_model_takes_for_one(model, tmp_path):
    labels = LabelSet.of(["abc", "acb", "zzz", "qqq", "www"])  # the tiny text tower sees letters, not their order
    found = lint(labels, PromptSet.load("bare"), model, cache=Cache(tmp_path))
    (warning,) = [warning for warning in found.warnings if warning.kind == "near duplicates"]
    assert warning.labels == ("abc", "acb")
    assert warning.similarity == pytest.approx(1, abs=1e-5)
    assert found.closest[0][:2] == ("abc", "acb")


def test_one_label_has_no_pairs_and_likeliest_words_no_vector(model, tmp_path):
    assert lint(LabelSet.of(["x"]), PromptSet.load("bare"), model, cache=Cache(tmp_path)).closest == ()
    with pytest.raises(UsageError, match="several vectors"):
        lint(LabelSet.of(["x"]), PromptSet.load("bare").worded(over_words="max"), model, cache=Cache(tmp_path))
