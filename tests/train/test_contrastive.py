import json
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from clipact.data.fingerprint import take_fingerprint
from clipact.errors import ConfigError, TrainingError, UsageError
from clipact.models.checkpoint import WEIGHTS, FileSeen, load_checkpoint, read_config, read_files_seen, weights_hash
from clipact.train.averaging import interpolate_models
from clipact.train.log import read_log
from clipact.train.trainer import STATE_FILE
from tests.train.small_run import small_recipe, small_run


@pytest.fixture
def go(drawn, small, tmp_path):
    """A run of the small recipe, changed by tables, to its end or to a step: its folder."""

    def run(name, *, stop_after=None, resume=False, **tables):
        trainer = small_run(small_recipe(small, **tables), drawn, tmp_path / f"store-{name}")
        for report in trainer.train(tmp_path / name, resume=resume):
            trainer.stopping = trainer.stopping or report.step == stop_after
        return tmp_path / name

    return run


def _steps(folder):
    """The log without what is measured."""
    measured = ("samples_per_second", "waited", "memory_gb")
    return [{key: value for key, value in line.items() if key not in measured} for line in read_log(folder)]


def test_a_run_gives_a_model_and_a_line_a_step(go):
    out = go("out")
    lines = read_log(out)
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert [line["step"] for line in lines if "dev.text_to_visual_recall_1" in line] == [3, 6, 8]
    for name in ("best", "last"):
        assert read_config(out / name).trained_on == ("drawn",)
        seen = (out / name / "trained_on.csv").read_text().splitlines()
        assert len(seen) == 1 + 10 + 3
    recalls = {line["step"]: line["dev.text_to_visual_recall_1"] for line in lines if line["step"] in (3, 6, 8)}
    best = min(step for step, recall in recalls.items() if recall == max(recalls.values()))
    assert read_config(out / "best").notes["step"] == best
    start = load_checkpoint(out / "last").encode_text(["a picture"])
    assert start.isfinite().all()


def test_two_runs_are_the_same_bit_for_bit_and_another_seed_is_not(go):
    first, second = go("first"), go("second")
    assert weights_hash(first / "last") == weights_hash(second / "last")
    assert _steps(first) == _steps(second)
    assert weights_hash(go("third", seed=1) / "last") != weights_hash(first / "last")


@pytest.mark.parametrize("stop_after", [1, 3, 7])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(go, stop_after):
    whole = go("whole")
    cut = go("cut", stop_after=stop_after)
    assert not (cut / "last").exists()
    assert _steps(go("cut", resume=True)) == _steps(whole)
    assert weights_hash(cut / "last") == weights_hash(whole / "last")
    assert weights_hash(cut / "best") == weights_hash(whole / "best")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_run_that_was_killed_goes_on_bit_for_bit(go, drawn, small, tmp_path):
    """Killed in the middle of an epoch, of a checkpoint and of a model, with workers on; then taken to its end."""
    whole = go("whole")
    for moment in ("step", "save", "model"):
        resume = ["--resume"] if moment != "step" else []
        words = [drawn, small, tmp_path / "killed", tmp_path / "store", moment, *resume]
        command = [sys.executable, "-m", "tests.train.small_run", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert any(path.name.startswith((".best.", ".last.")) for path in (tmp_path / "killed").iterdir())
    assert not (tmp_path / "killed" / "last").exists()
    killed = go("killed", resume=True)
    assert weights_hash(killed / "last") == weights_hash(whole / "last")
    assert weights_hash(killed / "best") == weights_hash(whole / "best")
    assert _steps(killed) == _steps(whole)
    assert {path.name for path in killed.iterdir()} == {"best", "last", "log.jsonl", STATE_FILE}, (
        "nothing is left beside"
    )


def test_a_folder_that_cannot_be_is_said(go, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be made: Not a directory; take another --out"):
        go("file/out")


def test_a_run_that_cannot_log_for_tensorboard_is_not_begun(drawn, small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run = small_run(small_recipe(small), drawn, tmp_path / "store")
    with pytest.raises(TrainingError, match=r"pip install 'clipact\[tensorboard\]'"):
        next(run.train(tmp_path / "out", tensorboard=True))
    assert not (tmp_path / "out").exists()


def test_a_locked_tower_learns_from_its_step_on(go, small):
    before = load_checkpoint(small).state_dict()
    locked = {"visual": {"trainable": "nothing", "unfreeze_step": 4}, "optim": {"ema_decay": None}}
    early = go("early", train={"steps": 4}, **locked)
    late = go("late", train={"steps": 5}, **locked)
    for out, moved in ((early, False), (late, True)):
        after = load_checkpoint(out / "last").state_dict()
        changed = [name for name in before if name.startswith("visual.") and not torch.equal(before[name], after[name])]
        assert bool(changed) == moved, changed
        assert not torch.equal(before["text.words.weight"], after["text.words.weight"])
    whole, cut = go("whole", **locked), go("cut", stop_after=6, **locked)
    go("cut", resume=True, **locked)
    assert weights_hash(cut / "last") == weights_hash(whole / "last")


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_what_is_saved_lies_part_of_the_way_back_to_where_the_last_stretch_began(go, tmp_path, ema_decay):
    locked = {"visual": {"trainable": "nothing", "unfreeze_step": 4}}
    optim = {"ema_decay": ema_decay, "warmup_steps": 0}
    early = go("early", train={"steps": 4}, optim=optim, **locked)
    late = go("late", optim=optim, **locked)
    blended = load_checkpoint(
        interpolate_models(early / "last", late / "last", tmp_path / "blended", alpha=0.7)
    ).state_dict()
    shared = {"optim": optim | {"wise_ft_alpha": 0.3}} | locked
    out, cut = go("out", **shared), go("cut", stop_after=6, **shared)
    for name, value in load_checkpoint(out / "last").state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, blended[name], msg=name)
    go("cut", resume=True, **shared)
    assert weights_hash(cut / "last") == weights_hash(out / "last")
    before = {line["step"]: line for line in read_log(late)}
    for line in read_log(out):  # what is judged is blended, what learns is not
        assert line["loss"] == before[line["step"]]["loss"]


def test_the_rate_rises_and_falls_anew_where_more_begins_to_learn(go):
    locked = {"visual": {"trainable": "nothing", "unfreeze_step": 3}, "optim": {"warmup_steps": 2, "lr": 1.0}}
    rates = [line["rate"] for line in read_log(go("out", **locked))]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[3:] == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.25])
    go("cut", stop_after=5, **locked)
    assert [line["rate"] for line in read_log(go("cut", resume=True, **locked))] == rates


def test_kept_graphs_are_chosen_once_for_a_run(go, monkeypatch):
    out = go("out", stop_after=2, train={"graph_memory_gb": 1.0})
    with safe_open(out / STATE_FILE, framework="pt") as file:
        facts = json.loads(file.metadata()["clipact"])
    visual, text = facts["progress"]["retained_chunks"]["0"]
    assert visual >= 1
    assert text >= 1
    monkeypatch.setattr("clipact.train.contrastive.plan_graph_budget", None)  # a resumed run does not measure again
    go("out", resume=True, train={"graph_memory_gb": 1.0})
    assert (out / "last").is_dir()


def test_a_run_is_not_begun_twice_nor_gone_on_with_under_another_recipe(go, tmp_path):
    out = go("out", stop_after=2)
    with pytest.raises(UsageError, match="holds a run already: --resume"):
        go("out")
    with pytest.raises(UsageError, match=r"train\.batch is 7 and was 5"):
        go("out", resume=True, train={"batch": 7})
    with pytest.raises(UsageError, match=r"optim\.ema_decay is None and was 0\.9"):
        go("out", resume=True, optim={"ema_decay": None})
    with pytest.raises(TrainingError, match="nothing to resume"):
        go("none", resume=True)
    go("out", resume=True, data={"workers": 0, "max_unreadable": 3})
    assert (out / "last").is_dir()


def test_a_run_of_before_a_setting_was_there_goes_on_with_its_default(go, drawn, small, tmp_path):
    whole, out = go("whole"), go("out", stop_after=2)
    state = small_run(small_recipe(small), drawn, tmp_path / "store").state
    progress = state.load(out / STATE_FILE)
    del progress.recipe["train"]["loss_tile"], progress.recipe["data"]["sources"][1]["captions"]
    state.save(out / STATE_FILE, progress)
    with pytest.raises(UsageError, match=r"train\.loss_tile is 2 and was 4096"):
        go("out", resume=True, train={"loss_tile": 2})
    go("out", resume=True)
    assert weights_hash(out / "last") == weights_hash(whole / "last")


def test_a_run_with_a_setting_that_is_no_more_is_not_gone_on_with(go, drawn, small, tmp_path):
    out = go("out", stop_after=2)
    state = small_run(small_recipe(small), drawn, tmp_path / "store").state
    progress = state.load(out / STATE_FILE)
    progress.recipe["train"]["bygone"] = 3
    state.save(out / STATE_FILE, progress)
    with pytest.raises(UsageError, match=r"train\.bygone is None and was 3"):
        go("out", resume=True)


def test_other_data_are_not_gone_on_with(go, drawn, small, tmp_path, monkeypatch):
    go("out", stop_after=2)
    trainer = small_run(small_recipe(small), drawn, tmp_path / "store")
    trainer.examples = trainer.examples[:-1]
    with pytest.raises(UsageError, match="other files or sentences"):
        next(trainer.train(tmp_path / "out", resume=True))


def test_what_a_model_had_seen_is_seen_by_what_is_tuned_from_it(go, small, tmp_path):
    first = go("first", train={"steps": 1})
    seen = read_files_seen(first / "last")
    assert len(seen) == 13
    tuned = tmp_path / "tuned"
    shutil.copytree(first / "last", tuned)
    (tuned / "trained_on.csv").write_text(f"path,sha256\nelsewhere.jpg,{'0' * 64}\n")
    again = go("again", train={"steps": 1}, init={"model": str(tuned)}, trained_on=["more"])
    assert read_config(again / "last").trained_on == ("drawn", "more")
    before = {"0" * 64: FileSeen(path="elsewhere.jpg", sha256="0" * 64)}  # as older tables have it: no source, no hash
    assert read_files_seen(tuned) == before
    assert read_files_seen(again / "last") == seen | before
    mixed = interpolate_models(first / "last", tuned, tmp_path / "mixed", alpha=0.5)
    assert read_files_seen(mixed) == seen | before


PROTOCOL = """
name = "grey"
title = "Grey pictures"
metric = "retrieval"
source = "drawn"
[data]
set = "greys"
split = "test"
parts = [{ manifest = "pictures.csv" }]
"""


def test_a_protocol_names_its_data_set_and_every_picture_has_its_source_and_hashes(go, drawn, tmp_path):
    (tmp_path / "grey.toml").write_text(PROTOCOL)
    sources = [{"protocol": str(tmp_path / "grey.toml")}, {"manifest": "clips.csv", "frames": 4}]
    held = {"name": "dev", "protocol": str(tmp_path / "grey.toml"), "split": "test"}
    last = go("out", train={"steps": 1}, data={"sources": sources}, validation={"sets": [held]}) / "last"
    assert read_config(last).trained_on == ("drawn", "greys train")
    seen = read_files_seen(last)
    assert [(one.path, one.source) for one in seen.values()][8:11] == [
        ("pictures/8.png", "grey"),
        ("pictures/9.png", "grey"),
        ("clips/0.mp4", "clips.csv"),
    ]
    for digest, one in seen.items():
        taken = take_fingerprint(drawn / one.path)
        assert (digest, one.sha256, one.difference_hash) == (taken.sha256, taken.sha256, taken.difference_hash)
    assert [len(one.difference_hash) for one in seen.values()] == [16] * 10 + [0] * 3


def test_what_cannot_be_trained_is_said_at_once(go, tmp_path):
    with pytest.raises(ConfigError, match="'fp16', which is for CUDA"):
        go("out", train={"precision": "fp16"})
    with pytest.raises(ConfigError, match="did you mean"):
        go("out", validation={"monitor": "dev.text_to_visual_recal_1"})
    assert not (tmp_path / "out").exists(), "a wrong name is not found out after the last step"


def test_a_run_in_which_several_sentences_are_said_of_a_clip_goes_on_bit_for_bit(go):
    tables = {"sentences": 2, "train": {"steps": 4}}
    whole, _ = go("whole", **tables), go("cut", stop_after=3, **tables)
    assert weights_hash(go("cut", resume=True, **tables) / "last") == weights_hash(whole / "last")


@pytest.mark.parametrize(
    "change", [{"precision": "bf16"}, {"loss": "sigmoid", "loss_tile": 2}, {"label_smoothing": 0.1}]
)
def test_every_kind_of_step_runs_and_repeats(go, change):
    first, second = (go(name, train={"steps": 3, **change}) / "last" for name in ("first", "second"))
    assert weights_hash(first) == weights_hash(second)
    assert (first / WEIGHTS).read_bytes() != (go("plain", train={"steps": 3}) / "last" / WEIGHTS).read_bytes()
    assert read_config(first).precision == change.get("precision", "fp32")
