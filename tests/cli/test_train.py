import json
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from clipact.cli.train import TrainScreen
from clipact.models.checkpoint import load_checkpoint, weights_hash
from clipact.train.log import StepMetrics
from clipact.train.verify_gradient import BOUNDS
from tests.data.drawing import draw_data
from tests.train.small_run import small_model

RECIPE = """
name = "small"
trained_on = ["drawn"]

[data]
sources = [{ manifest = "pictures.csv" }, { manifest = "clips.csv", frames = 4 }]
workers = 0

[train]
batch = 5
chunk = 8
steps = 6

[validation]
every_steps = 2
sets = [{ name = "dev", manifest = "pictures.csv", split = "test" }]
"""


NO_WAIT = {"waited_seconds": 0.0, "memory_bytes": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = draw_data(tmp_path_factory.mktemp("data"))
    model = small_model(folder / "small")
    (folder / "small.toml").write_text(RECIPE + f'\n[init]\nmodel = "{model}"\n')
    return folder


def _log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_recipe_becomes_a_model(clipact, data, tmp_path):
    done = clipact("train", data / "small.toml", "--data", data, "--out", tmp_path / "out")
    assert (done.code, done.out.strip()) == (0, str(tmp_path / "out/best"))
    assert "step 2: dev.text_to_visual_recall_1" in done.err
    assert "step 6 of 6" not in done.err.replace("step 6: dev", "")
    assert load_checkpoint(tmp_path / "out/last").dim == 16
    assert [line["step"] for line in _log(tmp_path / "out")] == [1, 2, 3, 4, 5, 6]


def test_a_video_tower_is_trained_shown_and_asked(clipact, data, tmp_path):
    tower = "{ tower = 'vivit', width = 12, layers = 1, heads = 2, hidden = 16, head = { dim = 16, blocks = 0 } }"
    changes = [
        f"init.visual={tower}",
        "init.clip={ frames = 4, size = [32, 32] }",
        "train.steps=2",
        "validation.sets=[]",
    ]
    changes += ["data.sources=[{ manifest = 'clips.csv', frames = 4 }]", "train.batch=2"]
    words = [word for change in changes for word in ("--set", change)]
    done = clipact("train", data / "small.toml", "--data", data, "--out", tmp_path / "out", *words)
    assert (done.code, done.out.strip()) == (0, str(tmp_path / "out/last"))
    model = ["--model", tmp_path / "out/last"]
    done = clipact("classify", data / "clips/0.mp4", "--labels", "waving,bending", *model, "--json")
    assert done.code == 0
    answer = json.loads(done.out)
    assert {entry["label"] for entry in answer["predictions"]} == {"waving", "bending"}
    done = clipact("classify", data / "clips/0.mp4", "--labels", "waving,bending", *model, "--frames", "3")
    assert done.code != 0
    assert "3 frames; this tower sees 2 at a time" in done.err
    said = clipact("models", "show", tmp_path / "out/last", "--device", "cpu").out
    for words in ("vivit (visual) + bert (text)", "sees order    yes", "4 frames, segment_centers, 32 x 32", "drawn"):
        assert words in said


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(clipact, data, tmp_path):
    done = clipact(
        "train", data / "small.toml", "--data", data, "--out", tmp_path / "out", "--dry-run", "--set", "train.batch=6"
    )
    assert done.code == 0
    for said in (
        "all is trained",
        "chunks a batch",
        "each chunk taken in once a step",
        "6 a batch",
        "3 steps",
        "the run",
        "at this pace",
    ):
        assert said in done.out, done.out
    assert not (tmp_path / "out").exists()


def test_a_plan_counts_what_frozen_towers_encode(clipact, data, tmp_path):
    words = ["--out", tmp_path / "out", "--dry-run", "--set", "visual.trainable=head", "--set", "text.trainable=head"]
    done = clipact("train", data / "small.toml", "--data", data, *words)
    assert done.code == 0
    lines = {line.split("  ")[0].strip(): line for line in done.out.splitlines()}
    assert "s for 13, 0 of them from the cache" in lines["encoding clips"]
    assert "s for 32, 0 of them from the cache" in lines["encoding sentences"]
    assert {"all steps", "the run"} <= lines.keys()
    done = clipact("train", data / "small.toml", "--data", data, *words, "--json")
    plan = json.loads(done.out)
    assert (plan["encoding"]["clips"], plan["encoding"]["sentences"], len(plan["phases"])) == (13, 32, 1)
    parts = plan["encoding"]["clip_seconds"] + plan["encoding"]["sentence_seconds"] + plan["steps_seconds"]
    assert plan["run_seconds"] == pytest.approx(parts)
    assert not (tmp_path / "out").exists()


def test_a_plan_for_machines_needs_a_plan(clipact, data):
    done = clipact("train", data / "small.toml", "--data", data, "--json")
    assert done.code == 2
    assert "--dry-run" in done.err


def test_a_plan_has_a_part_for_each_stretch(clipact, data):
    words = ["--dry-run", "--verify-grad", "--set", "visual.trainable=head", "--set", "visual.unfreeze_step=4"]
    done = clipact("train", data / "small.toml", "--data", data, *words)
    assert done.code == 0
    for said in ("steps 0 to 3", "head is trained", "steps 4 to 5", "all is trained", "in all", "after 5 steps"):
        assert said in done.out, done.out
    assert "from step 0 on" in done.err
    assert "from step 4 on" in done.err


def test_the_gradient_is_verified_first(clipact, data, tmp_path):
    done = clipact("train", data / "small.toml", "--data", data, "--dry-run", "--verify-grad")
    assert done.code == 0
    assert "log_scale" in done.err
    assert "1e-06" in done.err


def test_a_gradient_past_its_bound_is_not_trained_with(clipact, data, tmp_path, monkeypatch):
    monkeypatch.setitem(BOUNDS, torch.float32, -1.0)
    done = clipact("train", data / "small.toml", "--data", data, "--out", tmp_path / "out", "--verify-grad")
    assert done.code == 1
    assert "differs from plain autograd's: visual by" in done.err
    assert not (tmp_path / "out").exists()


def test_ctrl_c_while_a_frozen_tower_encodes_ends_at_once_when_every_step_is_saved(capsys):
    run, screen = SimpleNamespace(stopping=False, steps=3, unreadable_files={}), TrainScreen()

    def reports(*, saved):
        if saved is not None:
            yield StepMetrics(
                saved=saved,
                step=1,
                loss=1.0,
                scale=1.0,
                learning_rate=1.0,
                gradient_norm=1.0,
                clips=1,
                seconds=1.0,
                **NO_WAIT,
            )
        for number in screen.show_progress(range(3), 3, "encoding"):
            if number == 1:
                signal.raise_signal(signal.SIGTERM)
        seen.append(saved)

    seen = []
    for saved in (None, True, False):
        run.stopping = False
        screen.follow(run, reports(saved=saved))
        assert run.stopping
    assert seen == [False], "a step that is not saved is waited for"
    assert capsys.readouterr().err.count("what is encoded is kept") == 2


def test_a_bar_and_its_facts_fit_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, for rich
    monkeypatch.setenv("COLUMNS", "80")
    run = SimpleNamespace(stopping=False, steps=123_456, unreadable_files={})
    numbers = {"loss": 10.125, "scale": 99.96, "learning_rate": 1.0, "gradient_norm": 1.0, "clips": 32_768}
    report = StepMetrics(step=12_345, **numbers, seconds=2.0, waited_seconds=0.5, memory_bytes=21 * 10**9)
    with TrainScreen() as screen:
        screen.follow(run, iter([report]))
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip() for line in capsys.readouterr().err.splitlines()]
    facts = "loss 10.125 · scale 100.0 · 16,384 samples/s · 21.00 GB · 25% waiting for data"
    assert facts in lines
    assert any(line.startswith("training ━") and "12345/123456" in line for line in lines), lines
    assert max(map(len, lines)) <= 80


def test_what_is_wrong_is_said_before_anything_is_done(clipact, data, tmp_path):
    out = tmp_path / "out"
    done = clipact("train", tmp_path / "none.toml", "--data", data, "--out", out)
    assert done.code == 2
    assert "none.toml" in done.err
    done = clipact("train", data / "small.toml", "--data", data, "--out", out, "--set", "train.bach=3")
    assert done.code == 2
    assert "did you mean 'batch'?" in done.err
    done = clipact("train", data / "small.toml", "--data", tmp_path, "--out", out)
    assert done.code == 2
    assert "pictures.csv" in done.err
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 0), (signal.SIGTERM, 2)])
def test_ctrl_c_saves_says_how_to_go_on_and_loses_nothing(clipact, data, tmp_path, number, workers):
    """And so does a termination of the whole group, workers included, as `timeout` or a container's end sends it."""
    words = [
        "train",
        data / "small.toml",
        "--data",
        data,
        "--set",
        "train.steps=40",
        "--set",
        "validation.every_steps=0",
    ]
    words += ["--set", f"data.workers={workers}"]
    script = "import tests.train.small_run; from clipact.cli.app import main; main()"
    command = [sys.executable, "-c", script, *map(str, words), "--out", str(tmp_path / "cut")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as running:
        while not (tmp_path / "cut/log.jsonl").exists() or not (tmp_path / "cut/log.jsonl").read_text():
            assert running.poll() is None
            time.sleep(0.05)
        os.killpg(running.pid, number)
        said = running.communicate()[1]
    assert running.returncode == 130
    assert "go on with: clipact train" in said
    assert said.strip().endswith("--resume")
    done = len(_log(tmp_path / "cut"))
    assert 0 < done < 40
    assert clipact(*words, "--out", tmp_path / "cut", "--resume").code == 0
    assert clipact(*words, "--out", tmp_path / "whole").code == 0
    assert weights_hash(tmp_path / "cut/last") == weights_hash(tmp_path / "whole/last")
