import sys

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from clipact.errors import TrainingError
from clipact.models.checkpoint import load_checkpoint
from clipact.train.averaging import EMA, InitialWeights
from clipact.train.log import Log, read_log
from clipact.train.optim import OptimConfig, make_optimizer
from clipact.train.state import RunProgress, RunState
from tests.tiny import tiny_checkpoint

PROGRESS = RunProgress(
    step=7,
    recipe={"lr": 1.0, "t": {"a": [1, "b"]}},
    retained_chunks={"0": (2, 0)},
    best=0.25,
    unreadable_files={"a": "why"},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("m") / "tiny")


def _run(folder):
    encoder = load_checkpoint(folder)
    names = tuple(name for name, _ in encoder.named_parameters() if "head" in name or name == "log_scale")
    optimizer = make_optimizer(encoder, names, OptimConfig(lr=0.1))
    ema, initial = EMA(encoder, names, decay=0.9), InitialWeights(encoder, names, alpha=0.5)
    state = RunState(encoder, optimizer, names, copies={"ema": ema.tensors, "initial_weights": initial.tensors})
    return state, ema, initial


def _step(run, seed, ema):
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in run.model.named_parameters():
        if name in run.names:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    run.optimizer.step()
    ema.update(step=seed)


def _weights(run):
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def test_what_is_brought_back_goes_on_bit_for_bit(folder, tmp_path):
    whole, ema, initial = _run(folder)
    for seed in range(3):
        _step(whole, seed, ema)
    initial.capture()
    whole.save(tmp_path / "state", PROGRESS)
    again, other_ema, _ = _run(folder)
    assert again.load(tmp_path / "state") == PROGRESS
    for seed in range(3, 6):
        _step(whole, seed, ema)
        _step(again, seed, other_ema)
    for name, value in _weights(whole).items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    for copy, tensors in whole.copies.items():
        for name, value in tensors.items():
            assert torch.equal(value, again.copies[copy][name]), (copy, name)


def test_a_state_holds_what_learns_and_no_frozen_parameter(folder, tmp_path):
    run, ema, _ = _run(folder)
    _step(run, 0, ema)
    run.save(tmp_path / "state", PROGRESS)
    kept = load_file(tmp_path / "state")
    buffers = {name for name, _ in run.model.named_buffers()}
    assert {name.removeprefix("model.") for name in kept if name.startswith("model.")} == {*run.names} | buffers
    assert sum(name.startswith("optimizer.") for name in kept) == 3 * len(run.names)


@pytest.mark.parametrize("damage", ["missing", "cut", "foreign", "other model"])
def test_what_is_no_state_of_this_run_is_refused(folder, tmp_path, damage):
    path, (run, _, _) = tmp_path / "state", _run(folder)
    run.save(path, PROGRESS)
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "foreign":
        save_file({"x": torch.ones(1)}, path)
    else:
        del run.copies["ema"]
    with pytest.raises(TrainingError, match=r"nothing to resume|no state of a clipact run|of another model"):
        run.load(path)


def test_a_disk_that_refuses_leaves_the_older_state(folder, tmp_path, monkeypatch):
    path, (run, _, _) = tmp_path / "state", _run(folder)
    run.save(path, PROGRESS)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clipact.atomic_write.os.replace", full)
    with pytest.raises(TrainingError, match="No space left"):
        run.save(path, PROGRESS)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_a_disk_that_is_full_half_way_is_said_and_leaves_the_older_state(folder, tmp_path, monkeypatch):
    path, (run, _, _) = tmp_path / "state", _run(folder)
    run.save(path, PROGRESS)
    before = path.read_bytes()

    def full(tensors, part, **_):
        part.with_name(".tmpX").write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("clipact.train.state.save_file", full)
    with pytest.raises(TrainingError, match="No space left"):
        run.save(path, PROGRESS)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_numbers_that_are_none_are_null_in_the_log(tmp_path):
    with Log(tmp_path, step=0) as log:
        log.write(1, gradient_norm=float("inf"), loss=0.5)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1, "gradient_norm": null, "loss": 0.5}\n'


def test_the_log_of_a_resumed_run_has_every_step_once(tmp_path):
    with Log(tmp_path, step=0) as log:
        for step in (1, 2, 3):
            log.write(step, loss=step / 2)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    with Log(tmp_path, step=2) as log:
        log.write(3, loss=9.0)
        log.write(3, recall_1=0.5)
    assert read_log(tmp_path) == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 1.0},
        {"step": 3, "loss": 9.0},
        {"step": 3, "recall_1": 0.5},
    ]


def test_a_log_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(TrainingError, match=r"log\.jsonl cannot be written: Is a directory"):
        Log(tmp_path, step=0)
    (tmp_path / "full").mkdir()
    with Log(tmp_path / "full", step=0) as log:
        log.path.symlink_to("/dev/full")
        with pytest.raises(TrainingError, match=r"log\.jsonl cannot be written: No space left"):
            log.write(1, loss=0.5)


def test_numbers_go_to_tensorboard_and_its_absence_says_what_to_install(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Log(tmp_path, step=0, tensorboard=True) as log:
        log.write(1, loss=0.5, words="none")
        log.write(2, loss=0.25)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match=r"pip install 'clipact\[tensorboard\]'"):
        Log(tmp_path, step=0, tensorboard=True)
