import json

import numpy as np
import pytest

from clipact.calibration import (
    Calibration,
    CalibrationTarget,
    background_words,
    exclude_labels,
    fit_params,
    near_labels,
)
from clipact.data.protocol import Views
from clipact.errors import CalibrationError
from clipact.prompts import LabelSet, PromptSet, clean
from tests.calibration.test_fit import drawn


@pytest.fixture(scope="module")
def calibration():
    params, metrics = fit_params(drawn(60, labels=10))
    target = CalibrationTarget(
        model="mini",
        model_key="ab",
        labels=LabelSet.load("daily-living:ten"),
        background=background_words(),
        prompts=PromptSet.load("action"),
        sentences="cd",
        views=Views(frames=4, views=2),
    )
    return Calibration(target=target, params=params, source="drawn", clips=60, groups=60, metrics=metrics)


def test_what_is_read_is_what_was_written(calibration, tmp_path):
    path = calibration.save(tmp_path / "new" / "mine.json")
    assert Calibration.load(path) == calibration
    calibration.save(path)
    assert [one.name for one in path.parent.iterdir()] == ["mine.json"]
    assert path.stat().st_size < 40_000


def test_what_is_no_calibration_is_not_written_over(calibration, tmp_path):
    (tmp_path / "known.csv").write_text("path,label\n")
    for place in ("known.csv", ".", "known.csv/below.json"):
        with pytest.raises(CalibrationError, match="is there and is no calibration|cannot be written"):
            calibration.save(tmp_path / place)
    assert [one.name for one in tmp_path.iterdir()] == ["known.csv"]
    assert (tmp_path / "known.csv").read_text() == "path,label\n"


def _changed(text, *path, to):
    whole = json.loads(text)
    inner = whole
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[: len(text) // 2], "no calibration"),
        (lambda text: "", "no calibration"),
        (lambda text: "[]", "no calibration"),
        (lambda text: "[" * 100_000, "no calibration"),
        (lambda text: '{"path": 1}', "no calibration"),
        (lambda text: _changed(text, "format", to=2), "format 2"),
        (lambda text: _changed(text, "calibration", "params", "temperature", to=2.5), "not those that were written"),
        (lambda text: _changed(text, "calibration", to=None), "not those that were written"),
    ],
)
def test_a_damaged_file_is_refused(calibration, tmp_path, damage, said):
    path = calibration.save(tmp_path / "mine.json")
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(CalibrationError, match=said):
        Calibration.load(path)


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("params", "temperature"), 0),
        (("params", "score"), "guess"),
        (("params", "thresholds"), [0.5]),
        (("params", "coverage"), 2),
        (("target", "labels", "labels"), ["a"]),
        (("target", "background"), ["walking\x1b[2J"]),
        (("target", "prompts", "templates"), []),
        (("target", "views", "averaging"), "wishes"),
        (("clips",), "many"),
    ],
)
def test_what_cannot_be_meant_is_refused_even_when_its_hash_is_right(calibration, tmp_path, path, to, monkeypatch):
    file = calibration.save(tmp_path / "mine.json")
    file.write_text(_changed(file.read_text(encoding="utf-8"), "calibration", *path, to=to), encoding="utf-8")
    wanted = json.loads(file.read_text(encoding="utf-8"))["sha256"]
    monkeypatch.setattr("clipact.calibration.calibration._digest", lambda table: wanted)
    with pytest.raises(CalibrationError, match="is damaged"):
        Calibration.load(file)


def test_the_background_is_clean_and_no_phrase_is_there_twice():
    words = background_words()
    assert len(words) > 250
    assert len({word.casefold() for word in words}) == len(words)
    assert [word for word in words if clean(word) != word] == []


def test_a_word_that_is_a_label_or_means_one_is_no_background():
    labels = LabelSet.of(["read a book", "Hugging"])
    left = exclude_labels(background_words(), labels)
    assert set(background_words()) - set(left) == {"reading a book", "hugging"}
    rng = np.random.default_rng(0)
    background = rng.normal(size=(60, 8))
    background /= np.linalg.norm(background, axis=1, keepdims=True)
    found = near_labels(background, background[[4, 9]])
    assert found[4].tolist() == [True, False]
    assert found[9].tolist() == [False, True]
    assert found.sum() <= 4
