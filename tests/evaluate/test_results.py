import json
import os

import numpy as np
import pytest

from clipact.errors import ResultError
from clipact.evaluate.results import ClassificationResult, RetrievalResult, identical, load_result, save_result


def some(**changes):
    values = {
        "samples": ("a/1.mp4", "b/2.mp4", "b/3.mp4"),
        "labels": ("eating", "drinking <tea>"),
        "truth": np.array([0, 1, 1]),
        "scores": np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32),
        "groups": ("p0", "p1", "p1"),
        "parts": {"first": np.array([0, 1]), "second": np.array([1, 2])},
        "multi_truth": np.array([[True, False], [False, True], [True, True]]),
        "unreadable": (("c/4.mp4", "no video stream"),),
        "run": {"seed": 0, "model": {"name": "mini"}, "partial": False, "partial_why": []},
        "seconds": {"total": 1.5},
    }
    return ClassificationResult(**(values | changes))


def retrieval():
    rng = np.random.default_rng(0)
    return RetrievalResult(
        samples=("1.webp", "2.webp"),
        texts=("one", "uno", "two"),
        text_of=np.array([0, 0, 1]),
        visual=rng.normal(size=(2, 4)).astype(np.float32),
        text=rng.normal(size=(3, 4)).astype(np.float32),
    )


@pytest.mark.parametrize("scores", [some(), some(groups=None, multi_truth=None, parts={}), retrieval()])
def test_what_is_loaded_is_what_was_saved(scores, tmp_path):
    loaded = load_result(save_result(scores, tmp_path / "protocol--model"))
    assert identical(scores, loaded)
    assert (loaded.run, loaded.seconds, loaded.groups) == (scores.run, scores.seconds, scores.groups)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["protocol--model", "result.json", "scores.npz"]


def test_a_later_result_takes_the_place_of_an_earlier_one(tmp_path):
    save_result(some(), tmp_path / "r")
    later = some(scores=np.zeros((3, 2), np.float32))
    assert identical(load_result(save_result(later, tmp_path / "r")), later)


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": np.zeros((3, 2), np.float32)},
        {"samples": ("a/1.mp4", "b/2.mp4", "b/4.mp4")},
        {"truth": np.array([0, 1, 0])},
        {"groups": None},
        {"multi_truth": None},
        {"parts": {"first": np.array([0, 1]), "second": np.array([0, 2])}},
        {"unreadable": ()},
    ],
)
def test_one_difference_is_enough_not_to_be_identical(changes):
    assert identical(some(), some())
    assert not identical(some(), some(**changes))
    assert not identical(some(), retrieval())


def test_another_time_or_machine_is_identical_all_the_same():
    assert identical(some(), some(run={"machine": "other"}, seconds={"total": 9.0}))


def test_similarity_is_of_every_text_with_every_visual():
    one = retrieval()
    assert one.similarity.shape == (3, 2)
    np.testing.assert_allclose(one.similarity[2, 1], one.text[2] @ one.visual[1], rtol=1e-6)


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="groups"):
        some(groups=("p0",))


def test_a_folder_without_a_result_says_what_would_be_there(tmp_path):
    with pytest.raises(ResultError, match="holds no result"):
        load_result(tmp_path)


def test_a_folder_of_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ResultError, match="another place"):
        save_result(some(), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_disk_that_refuses_leaves_the_earlier_result(tmp_path, monkeypatch):
    before, after = some(), some(unreadable=())
    left = tmp_path / ".r.abcdefg1"
    left.mkdir()
    (tmp_path / ".r.s.abcdefg1").mkdir()  # of another result
    save_result(before, tmp_path / "r")
    assert not left.exists()
    real, seen = os.replace, []

    def replace(one, other):
        seen.append(one)
        if len(seen) == 2:
            raise OSError(28, "No space left on device")
        real(one, other)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(ResultError, match="No space left"):
        save_result(after, tmp_path / "r")
    assert identical(load_result(tmp_path / "r"), before)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".r.s.abcdefg1", "r"]


def test_damage_is_told_as_damage(tmp_path):
    folder = save_result(some(), tmp_path / "r")
    whole = (folder / "scores.npz").read_bytes()
    (folder / "scores.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ResultError, match="damaged"):
        load_result(folder)


def test_files_of_two_results_do_not_make_one(tmp_path):
    folder, other = save_result(some(), tmp_path / "r"), save_result(retrieval(), tmp_path / "s")
    (folder / "scores.npz").write_bytes((other / "scores.npz").read_bytes())
    with pytest.raises(ResultError, match="do not fit"):
        load_result(folder)


def test_another_format_is_refused(tmp_path):
    folder = save_result(some(), tmp_path / "r")
    table = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(table | {"format": 99}))
    with pytest.raises(ResultError, match="format is 99"):
        load_result(folder)
