from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipact.clip_spec import ClipSpec
from clipact.data.caption_augmentation import CaptionAugmentation, drop_colours
from clipact.data.sources import SourceConfig, read_sources
from clipact.errors import ConfigError
from clipact.train.loader import ClipTextDataset, SamplePosition, draw_texts
from clipact.video.augment import Augment
from tests.data.drawing import write_manifest


def _said(sentence, **rules):
    return set(CaptionAugmentation(**dict.fromkeys(rules, 1.0)).variants(sentence))


@pytest.mark.parametrize(
    ("sentence", "others"),
    [
        (
            "A dog runs through the grass .",
            [
                "A dog is running through the grass .",
                "A dog running through the grass .",
                "A dog ran through the grass .",
            ],
        ),
        (
            "Two men are sitting on a bench and reading .",
            [
                "Two men sit on a bench and read .",
                "Two men sitting on a bench and reading .",
                "Two men sat on a bench and read .",
            ],
        ),
        (
            "a boy in a red shirt riding his bike.",
            [
                "a boy in a red shirt is riding his bike.",
                "a boy in a red shirt rides his bike.",
                "a boy in a red shirt rode his bike.",
            ],
        ),
        (
            "Three dogs jump , run and play in the snow .",
            [
                "Three dogs are jumping , running and playing in the snow .",
                "Three dogs jumping , running and playing in the snow .",
                "Three dogs jumped , ran and played in the snow .",
            ],
        ),
        (
            "A man swimming , wearing a cap .",
            ["A man is swimming , wearing a cap .", "A man swims , wearing a cap .", "A man swam , wearing a cap ."],
        ),
        (
            "A man jumps onto a board that is lying on a chair .",
            [
                "A man is jumping onto a board that is lying on a chair .",
                "A man jumping onto a board that is lying on a chair .",
            ],
        ),
        ("A man is standing and a woman sits .", ["A man stands and a woman sits ."]),
        (
            "A group of people is waiting",
            ["A group of people waiting", "A group of people waits", "A group of people waited"],
        ),
        (
            "A man wearing a hat jumps over a log",
            [
                "A man wearing a hat is jumping over a log",
                "A man wearing a hat jumping over a log",
                "A man wearing a hat jumped over a log",
            ],
        ),
    ],
)
def test_a_verb_takes_its_other_forms(sentence, others):
    assert _said(sentence, tense=1) == set(others)


@pytest.mark.parametrize(
    "sentence",
    [
        "A dog is on the grass .",
        "There is a man riding a bike .",
        "A man in a suit and a woman in a dress walking .",
        "Two boys in swim trunks",
        "A man is going to jump .",
        "The flat side of a mountain .",
        "A crowd of people in colorful dresses .",
        "A man walking reads a sign .",
        "A man wearing blue plays soccer .",
        "A group of men in a raft doing whitewater rafting .",
        "A man 's dog runs away .",
        "A woman has a cup .",
        "Two men look like they are playing .",
        "Ein Mann läuft durch den Park .",
        "",
    ],
)
def test_what_is_not_sure_stays(sentence):
    assert _said(sentence, tense=1, person=1, subject=1) == {sentence}


@pytest.mark.parametrize(
    ("sentence", "others"),
    [
        ("The boy in the red shirt runs to a car.", ["A person runs to a car.", "Someone runs to a car."]),
        ("a skier", ["a skier"]),
        ("two little girls are playing", ["people are playing"]),
        ("A group of men is waiting .", ["People are waiting ."]),
        ("A man and a woman walk down a street .", ["People walk down a street ."]),
        ("A man and his dog run .", ["A man and his dog run ."]),
        ("A couple of dogs play .", ["A couple of dogs play ."]),
    ],
)
def test_who_does_it_is_called_a_person(sentence, others):
    assert _said(sentence, person=1) == set(others)


def test_who_does_it_is_left_out():
    assert _said("A lady looking at what she is eating .", subject=1) == {"looking at what she is eating"}
    assert _said("A dog runs through the grass.", subject=1) == {"running through the grass"}
    assert _said("Two boys are jumping and playing in the snow .", subject=1) == {"jumping and playing in the snow"}


@pytest.mark.parametrize(
    ("sentence", "plain"),
    [
        ("A boy in a red shirt holds a light blue ball .", "A boy in a shirt holds a ball ."),
        ("A black and white dog", "A dog"),
        ("an orange ball , a white apron and a pink uniform", "a ball , an apron and a uniform"),
        ("Brown dog in a red , white and blue T-shirt", "Dog in a T-shirt"),
        ("A boy in red runs", "A boy in red runs"),
        ("A man in black is smiling .", "A man in black is smiling ."),
        ("A blonde holding a bag", "A blonde holding a bag"),
        ("A brown dog chases a black dog .", "A brown dog chases a black dog ."),
        ("One brown and one black dog", "One brown and one black dog"),
        ("A fan of the Red Sox", "A fan of the Red Sox"),
        ("A red haired girl eats an orange .", "A red haired girl eats an orange ."),
        ("Two women with long , blonde hair on a grey day", "Two women with long , blonde hair on a grey day"),
        ("", ""),
    ],
)
def test_things_lose_their_colours(sentence, plain):
    assert drop_colours(sentence) == plain


def test_a_rule_is_as_likely_as_it_says_and_draws_what_it_may_say():
    sentence = "A man in a red hat is reading a book ."
    caption_augmentation = CaptionAugmentation(tense=0.5, person=0.25, subject=0.1, colours=0.5)
    drawn = [caption_augmentation.draw(sentence, seed=seed) for seed in range(1000)]
    assert drawn[:9] == [caption_augmentation.draw(sentence, seed=seed) for seed in range(9)]
    assert set(drawn) == set(caption_augmentation.variants(sentence))
    assert len(set(drawn)) == 8 + 2 * 4 + 1
    assert 0.06 < drawn.count("reading a book") / 1000 < 0.14
    assert 0.12 < drawn.count(sentence) / 1000 < 0.22, "0.5 x 0.75 x 0.9 x 0.5"
    assert CaptionAugmentation().variants(sentence) == (sentence,) == (CaptionAugmentation().draw(sentence, seed=1),)


@pytest.fixture
def captioned(data, tmp_path):
    rows = [
        {"path": f"pictures/{i}.png", "caption": f"A boy in a red hat throws {what} ."}
        for i, what in enumerate(("a ball", "two balls"))
    ]
    write_manifest(tmp_path / "c.csv", *rows)
    return SourceConfig(
        manifest=tmp_path / "c.csv",
        root=data,
        caption_augmentation=CaptionAugmentation(tense=0.5, person=0.5, colours=0.5),
    )


def test_captions_are_varied_anew_at_each_turn_and_nothing_else_is(captioned):
    def samples(source):
        return ClipTextDataset(
            read_sources([source], Path()), ClipSpec(size=(16, 16)), seed=3, augment=Augment(brightness=0.3)
        )

    varied, again, plain = (
        samples(captioned),
        samples(captioned),
        samples(replace(captioned, caption_augmentation=None)),
    )
    sentences = set()
    for epoch in range(12):
        one, same, other = (drawn[SamplePosition(epoch, 0)] for drawn in (varied, again, plain))
        assert one.texts == same.texts
        assert np.array_equal(one.clips, other.clips)
        ((sentence, ids),), ((unvaried, ids_before),) = one.texts, other.texts
        assert ids[0] == ids_before[0]
        assert (ids[1] == ids_before[1]) == (sentence == unvaried)
        sentences.add(sentence)
    assert len(sentences) > 4
    assert sentences <= set(varied.examples[0].possible_sentences)


def test_of_several_sentences_each_is_varied_and_none_is_said_twice(captioned, data, tmp_path):
    captions = ["A boy in a red hat throws a ball .", "The tall boy throws a ball .", "A ball ."]
    write_manifest(tmp_path / "three.csv", *({"path": "pictures/0.png", "caption": one} for one in captions))
    source = SourceConfig(
        manifest=tmp_path / "three.csv",
        root=data,
        sentences=3,
        caption_augmentation=CaptionAugmentation(tense=0.5, person=0.9, subject=0.2),
    )
    (example,) = read_sources([source], Path())
    turns = [[sentence for sentence, _ in draw_texts(example, seed=0, epoch=epoch)[0]] for epoch in range(60)]
    assert {len(turn) for turn in turns} == {2, 3}
    assert all(len(set(turn)) == len(turn) and "A ball ." in turn for turn in turns)
    alone = [draw_texts(replace(example, sentences_drawn=1), seed=0, epoch=epoch)[0][0][0] for epoch in range(60)]
    assert [turn[0] for turn in turns] == alone


def test_labels_are_not_varied_and_probabilities_are_such(captioned, data):
    with pytest.raises(ConfigError, match=r"caption_augmentation is for captions, but .*clips\.csv has labels"):
        read_sources([replace(captioned, manifest=Path("clips.csv"), root=None)], data)
    with pytest.raises(ConfigError, match=r"caption_augmentation\.tense is 2\.0; it is a probability"):
        CaptionAugmentation(tense=2.0)
