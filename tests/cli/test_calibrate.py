import json
import re
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from clipact import ZeroShotClassifier, load_model
from clipact.cache import Cache
from clipact.calibration import Calibration, background_words
from clipact.classify.calibrated import CalibratedClassifier
from clipact.cli.app import app
from clipact.data.protocol import Views
from clipact.errors import CalibrationError, UsageError
from clipact.evaluate.fit_calibration import labelled_clips
from clipact.evaluate.samples import EvalSamples
from clipact.prompts import LabelSet, PromptSet
from tests.calibration.table import LABELS, write_table
from tests.tiny import tiny_checkpoint

SEEN = ("--clips", 2, "--frames", 3)  # the same in all tests: the cache has it after the first


@pytest.fixture(scope="module")
def table(videos, tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("table") / "known.csv", videos)


@pytest.fixture(scope="module")
def fitted(table, videos, tiny, tmp_path_factory):
    """The file of `clipact calibrate` with two clips a video."""
    out = tmp_path_factory.mktemp("fitted") / "mine.json"
    words = ["calibrate", table, "--data", videos, "--model", tiny, "--out", out, *SEEN]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    assert max(len(line) for line in done.stdout.splitlines() if str(out) not in line) <= 80
    for said in (
        "42 in 14 groups, of which 21 check",
        "temperature",
        "calibration error",
        "coverage of 90%",
        "5% false rejections",
    ):
        assert said in done.stdout
    return out


def classify(clipact, fitted, tiny, videos, *more):
    done = clipact("classify", videos / "a.mp4", "--model", tiny, "--calibration", fitted, "--json", *more)
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_calibration_brings_its_labels_words_frames_and_clips(clipact, fitted, tiny, videos):
    row = classify(clipact, fitted, tiny, videos)
    assert {one["label"] for one in row["predictions"]} == set(LABELS)
    assert sum(one["score"] for one in row["predictions"]) == pytest.approx(1)
    assert (row["prompts"], len(row["frames"])) == ("action", 6)
    trust, params = row["trust"], Calibration.load(fitted).params
    assert set(trust["label_set"]) <= set(LABELS)
    assert trust["label_set"][0] == row["predictions"][0]["label"]
    assert (trust["coverage"], trust["threshold"], trust["score"]) == (0.9, params.threshold, "background")
    assert trust["none_of_these"] == (trust["in_set_score"] < trust["threshold"])
    assert len(row["agreement"]["views"]) == 2
    assert row == classify(clipact, fitted, tiny, videos, "--labels", ",".join(LABELS), "--clips", 2, "--frames", 3)


def test_the_temperature_and_nothing_else_changes_the_probabilities(fitted, tiny, videos):
    plain = ZeroShotClassifier.load(str(tiny), labels=LABELS, frames=3, clips=2).classify(videos / "a.mp4")
    calibrated = CalibratedClassifier.load(str(tiny), calibration=fitted).classify(videos / "a.mp4")
    ours = {one.label: one.score ** (1 / Calibration.load(fitted).params.temperature) for one in plain.ranked}
    for one in calibrated.ranked:
        assert one.score == pytest.approx(ours[one.label] / sum(ours.values()), rel=1e-4)
    assert calibrated.agreement.views == plain.agreement.views


def test_none_of_these_is_said_in_words(clipact, fitted, tiny, videos, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    known = Calibration.load(fitted)
    object.__setattr__(known.params, "threshold", 1e6)
    known.save(fitted.with_name("strict.json"))
    done = clipact("classify", videos / "a.mp4", "--model", tiny, "--calibration", fitted.with_name("strict.json"))
    assert "none of these: background score " in done.out
    assert " and 95% of clips that fit have 1000000.00 or more" in " ".join(done.out.split())
    assert "90% label set: " in done.out
    assert "of 2 views agree: " in done.out
    prediction = CalibratedClassifier.load(str(tiny), calibration=known).classify(videos / "a.mp4")
    assert prediction.none_of_these
    assert "none of these" in str(prediction)


def test_labels_one_by_one(clipact, fitted, tiny, videos):
    row = classify(clipact, fitted, tiny, videos, "--multi-label")
    thresholds = dict(zip(LABELS, Calibration.load(fitted).params.thresholds, strict=True))
    fitting = [p["label"] for p in row["predictions"] if p["score"] >= np.float32(thresholds[p["label"]])]
    assert row["accepted"] == fitting
    assert "trust" not in row
    words = ("classify", videos / "a.mp4", "--model", tiny, "--multi-label", "--labels")
    (three,) = map(json.loads, clipact(*words, "drink,read,eat", "--json").out.splitlines())
    (two,) = map(json.loads, clipact(*words, "drink,read", "--json").out.splitlines())
    assert three["accepted"] == [p["label"] for p in three["predictions"] if p["score"] >= 0.5]
    alone = {p["label"]: p["score"] for p in two["predictions"]}
    assert {p["label"]: p["score"] for p in three["predictions"] if p["label"] in alone} == pytest.approx(
        alone, rel=0.2
    )
    assert "by itself" in clipact(*words, "drink,read").out


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--labels", "drink,read"], "of 3 labels, not of these 2 .*leave out --labels"),
        (["--labels", "drink,read,sit"], "'sit' is none of them"),
        (["--labels", "read,drink,use laptop"], "not in this order"),
        (["--prompts", "bare"], "other sentences, of the prompts 'action'"),
        (["--frames", "4"], "3 frames, not 4"),
        (["--clips", "1"], "2 clips, not 1"),
        (["--model", "mini"], "of the model .*tiny', not 'mini'"),
    ],
)
def test_what_a_calibration_is_not_of_is_refused(clipact, fitted, tiny, videos, wrong, said):
    words = ["classify", videos / "a.mp4", "--calibration", fitted, *(["--model", tiny] * ("--model" not in wrong))]
    done = clipact(*words, *wrong)
    assert done.code == 1
    assert done.out == ""
    assert re.search(said, done.err), done.err


def test_clips_are_seen_in_the_precision_that_is_asked(clipact, fitted, table, videos, tiny, tmp_path):
    words = ("calibrate", table, "--data", videos, "--model", tiny, *SEEN, "--out")
    assert clipact(*words, tmp_path / "near.json", "--precision", "bf16").code == 0
    exact, near = (Calibration.load(file).params.threshold for file in (fitted, tmp_path / "near.json"))
    assert near != exact  # tiny did not learn in 16 bits: by itself it is seen in 32
    assert near == pytest.approx(exact, abs=0.05)


def test_weights_that_changed_under_their_name_are_another_model(fitted, tmp_path):
    own = Calibration.load(fitted)
    other = tiny_checkpoint(tmp_path / "tiny", seed=1)
    object.__setattr__(own.target, "model", str(other))
    with pytest.raises(CalibrationError, match="by that name, but of other weights"):
        CalibratedClassifier.load(str(other), calibration=own)


def test_a_file_that_is_no_calibration(clipact, tiny, videos, table):
    for file, said in ((table, "is no calibration"), (table.with_name("gone.json"), "No such file")):
        done = clipact("classify", videos / "a.mp4", "--model", tiny, "--calibration", file)
        assert done.code == 1
        assert said in done.err
    done = clipact("classify", videos / "a.mp4", "--model", tiny)
    assert done.code == 2
    assert "--labels drink,read" in done.err
    done = clipact("classify", videos / "a.mp4", "--model", tiny, "--labels", "index:x", "--multi-label")
    assert done.code == 2
    with pytest.raises(UsageError, match="multi_label=True"):
        CalibratedClassifier.load(str(tiny), labels=["drink"])


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        (["--coverage", "1"], 2, "--coverage is 1"),
        (["--ood-score", "enregy"], 2, "did you mean 'energy'"),
        (["--labels", "drink,read"], 2, "'use laptop'"),
        (["--coverage", "0.97"], 1, "21 of them are left to check"),
        (["--split", "dev"], 2, "no sample is of split 'dev'"),
    ],
)
def test_what_cannot_be_calibrated_leaves_no_file(clipact, table, videos, tiny, tmp_path, wrong, code, said):
    out = tmp_path / "mine.json"
    done = clipact("calibrate", table, "--data", videos, "--model", tiny, "--out", out, *SEEN, *wrong)
    assert done.code == code
    assert said in done.err
    assert not out.exists()


def test_too_few_clips_and_bad_ones(clipact, videos, tiny, tmp_path):
    few = write_table(tmp_path / "few.csv", videos, each=5)
    words = ["--data", videos, "--model", tiny, "--out", tmp_path / "mine.json", "--json", *SEEN]
    done = clipact("calibrate", few, *words)
    assert (done.code, done.out) == (1, "")
    assert "15 labelled clips could be read; a calibration needs 20" in done.err
    bad = write_table(tmp_path / "bad.csv", videos)
    lines = [line.rpartition(",")[0] for line in bad.read_text().splitlines()]  # no groups: stretches of three files
    bad.write_text("\n".join(lines) + "\nnotes.txt,read,,\n")
    done = clipact("calibrate", bad, *words, "--labels", "drink,read,use laptop,eat", "--ood-score", "energy")
    assert done.code == 1
    assert "notes.txt: " in done.err
    found = json.loads(done.out)
    assert (found["clips"], found["groups"], found["score"], len(found["thresholds"])) == (42, 3, "energy", 4)
    assert "all clips are of 3 groups" in done.err
    assert Calibration.load(found["calibration"]).target.labels == LabelSet.of(["drink", "read", "use laptop", "eat"])


def test_the_table_is_not_written_over(clipact, table, videos, tiny):
    before = table.read_text()
    done = clipact("calibrate", table, "--data", videos, "--model", tiny, "--out", table)
    assert (done.code, done.out) == (1, "")
    assert "is no calibration; name another place" in done.err
    assert table.read_text() == before


def test_captions_are_no_labels(clipact, videos, tiny, tmp_path):
    (tmp_path / "said.csv").write_text("path,caption\na.mp4,someone reads\n")
    done = clipact("calibrate", tmp_path / "said.csv", "--data", videos, "--model", tiny, "--out", tmp_path / "x.json")
    assert done.code == 2
    assert "captions" in done.err


def test_what_has_no_words_to_weigh_labels_against_is_refused(tiny, tmp_path):
    model, labels = load_model(str(tiny)), LabelSet.of(["drink", "read"])
    samples, prompts = EvalSamples(items=(), labels=labels), PromptSet.load("action")
    with pytest.raises(UsageError, match="knows its own labels alone"):
        CalibratedClassifier(replace(model, labels=("drink", "read")), labels=labels, multi_label=True)
    with pytest.raises(CalibrationError, match="3 crops"):
        labelled_clips(model, samples, labels, prompts, views=Views(crops=3))
    with pytest.raises(UsageError, match="await their weights"):
        labelled_clips(model, samples, labels, prompts.worded(over_templates="weighted"), views=Views())
    words = LabelSet.of(background_words(), phrases=background_words())
    with pytest.raises(CalibrationError, match="leave none of"):
        CalibratedClassifier(model, labels=words, prompts="bare", multi_label=True, cache=Cache(tmp_path))
