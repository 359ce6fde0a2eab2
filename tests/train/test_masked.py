import json

import numpy as np
import pytest
import torch
from PIL import Image

from clipact.classify.supervised import SupervisedClassifier
from clipact.clip_spec import ClipSpec
from clipact.config import parse
from clipact.errors import ConfigError, ModelError, UsageError
from clipact.losses import masked_mse, normalise_patches
from clipact.models.checkpoint import load_checkpoint, load_visual, read_config, read_files_seen, weights_hash
from clipact.train.baselines import baseline_recipe
from clipact.train.initialization import InitConfig, make_encoder, prior_training
from clipact.train.log import read_log
from clipact.train.masked import MaskedTrainer, PretrainRecipe
from clipact.train.masked_autoencoder import MaskConfig, draw_mask
from clipact.train.recipe import Recipe
from clipact.train.trainer import STATE_FILE
from tests.data.drawing import write_manifest
from tests.train.small_run import small_recipe, small_run
from tests.video.drawing import draw_video

ENCODER = {"width": 24, "layers": 1, "heads": 2, "hidden": 32, "patch": 4, "attention": "joint"}
ENCODER |= {"class_token": "none", "positions": "number_sines"}
TABLE = {
    "name": "tiny",
    "trained_on": ["drawn"],
    "encoder": ENCODER,
    "decoder": {"width": 16, "layers": 1, "heads": 2, "hidden": 16},
    "clip": {"frames": 4, "size": [16, 16]},
    "mask": {"ratio": 0.75},
    "data": {"sources": [{"files": "seen"}], "augment": {"scale": [0.5, 1.0]}, "workers": 0},
    "train": {"batch": 3, "steps": 4},
    "optim": {"lr": 1e-2, "ema_decay": 0.9},
    "validation": {"every_steps": 2, "sets": [{"name": "kept", "manifest": "kept.csv"}]},
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Four clips to learn from, and two that are held out: of a manifest with paths and nothing else."""
    folder = tmp_path_factory.mktemp("clips")
    for name in ("seen/0", "seen/1", "seen/2", "seen/3", "kept/4", "kept/5"):
        (folder / name).parent.mkdir(exist_ok=True)
        draw_video(folder / f"{name}.mp4", frames=8 + int(name[-1]))
    (folder / "seen/notes.txt").write_text("no video")
    write_manifest(folder / "kept.csv", {"path": "kept/4.mp4"}, {"path": "kept/5.mp4"})
    return folder


def _run(clips, **tables):
    table = {**TABLE}
    for name, values in tables.items():
        table[name] = {**table.get(name, {}), **values} if isinstance(values, dict) else values
    return MaskedTrainer(parse(PretrainRecipe, table), data=clips, device=torch.device("cpu"))


def _go(clips, out, *, stop_after=None, resume=False, **tables):
    run = _run(clips, **tables)
    for report in run.train(out, resume=resume):
        run.stopping = run.stopping or report.step == stop_after
    return out


def _steps(folder):
    measured = ("samples_per_second", "waited", "memory_gb")
    return [{key: value for key, value in line.items() if key not in measured} for line in read_log(folder)]


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory):
    return _go(clips, tmp_path_factory.mktemp("runs") / "whole")


def test_a_run_logs_errors_beside_the_means_and_draws_them(whole):
    lines = _steps(whole)
    assert [line["step"] for line in lines if "kept.error" in line] == [2, 4]
    assert "scale" not in lines[0]
    last = lines[-1]
    assert last["kept.explained"] == pytest.approx(1 - last["kept.error"] / last["kept.mean_error"])
    assert 0 < last["kept.mean_error"] <= 1
    assert {path.name for path in whole.iterdir()} == {"best", "last", "log.jsonl", "pictures", STATE_FILE}
    assert sorted(path.name for path in (whole / "pictures").iterdir()) == ["000002.png", "000004.png"]
    picture = np.asarray(Image.open(whole / "pictures/000004.png"))
    assert picture.shape == (6 * 20 + 4, 4 * 20 + 4, 3), "two clips, three rows each, four frames of 16 pixels"
    original, masked, filled = (picture[4 + 20 * row : 20 + 20 * row, 4:20] for row in range(3))
    hidden = (masked == 128).all(2)
    assert 0.75 <= hidden.mean() < 0.9
    assert (original[~hidden] == filled[~hidden]).all()
    assert (original == masked)[~hidden].all()


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(clips, whole, tmp_path, stop_after):
    cut = _go(clips, tmp_path / "cut", stop_after=stop_after)
    assert not (cut / "last").exists()
    _go(clips, cut, resume=True)
    assert _steps(cut) == _steps(whole)
    for name in ("last", "best"):
        assert weights_hash(cut / name) == weights_hash(whole / name)
    with pytest.raises(UsageError, match=r"mask\.ratio is 0\.5 and was 0\.75"):
        _go(clips, cut, resume=True, mask={"ratio": 0.5})


def test_chunks_change_nothing(clips, whole, tmp_path):
    chunked = _steps(_go(clips, tmp_path / "out", train={"batch": 3, "steps": 4, "chunk": 4}))
    assert [line["loss"] for line in chunked] == pytest.approx([line["loss"] for line in _steps(whole)], abs=1e-4)


def test_what_is_learnt_is_better_than_the_mean(clips, tmp_path):
    """Clips of one kind, over and over: below the error of predicting each patch's mean."""
    out = _go(
        clips,
        tmp_path / "out",
        train={"batch": 4, "steps": 24},
        validation={"every_steps": 0},
        optim={"lr": 2e-2, "ema_decay": None},
    )
    assert _steps(out)[-1]["kept.explained"] > 0


def test_the_encoder_is_shown_visible_tokens_alone(clips):
    model = _run(clips).model.eval()
    video = torch.randn(2, 4, 3, 16, 16)
    mask = draw_mask(MaskConfig(ratio=0.75), clips=2, steps=2, places=16, generator=torch.Generator().manual_seed(0))
    hidden = torch.zeros(2, 32, 1).scatter(1, mask.masked[..., None], 1.0)
    noise = hidden.reshape(2, 2, 1, 4, 4).repeat_interleave(2, 1).repeat_interleave(4, 3).repeat_interleave(4, 4)
    with torch.inference_mode():
        assert torch.equal(model(video + 9 * noise, mask), model(video, mask))
        assert not torch.equal(model(video + 9 * (1 - noise), mask), model(video, mask))


def test_a_tower_without_words_is_what_training_begins_from(clips, whole, drawn, small, tmp_path):
    best = whole / "best"
    assert read_config(best).text == {}
    assert len(read_files_seen(best)) == 4, "what was learnt from, not what was held out"
    with pytest.raises(ModelError, match="a visual tower without words; train from it with clipact train"):
        load_checkpoint(best)
    table = {"model": str(small), "pretrained": {"visual": str(best)}}
    table |= {"visual": {"tower": "vivit", "head": {"dim": 16, "blocks": 0}}}
    start = parse(InitConfig, table)
    assert prior_training(start).trained_on == ("drawn",)
    tower, encoder = load_visual(best), make_encoder(start, seed=0)
    assert encoder.spec == tower.spec
    video = torch.randn(2, 4, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(encoder.visual.features(video), tower.features(video))
    assert encoder.dim == 16
    data = {"sources": [{"manifest": "clips.csv", "frames": 4}]}
    recipe = small_recipe(small, init=table, train={"steps": 1}, data=data, validation={"sets": []})
    for _ in small_run(recipe, drawn, tmp_path / "store").train(tmp_path / "tuned"):
        pass
    seen = read_files_seen(tmp_path / "tuned/last")
    assert set(read_files_seen(best)) < set(seen)
    table["visual"] |= {"patch": 8}
    with pytest.raises(ConfigError, match=r"init\.visual\.patch is 8, but"):
        make_encoder(small_recipe(small, init=table).init, seed=0)


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_a_classifier_is_fine_tuned_from_it_or_probes_it(clips, whole, tmp_path, trainable):
    write_manifest(clips / "named.csv", *({"path": f"seen/{i}.mp4", "label": f"kind {i % 2}"} for i in range(4)))
    table = baseline_recipe(
        f"videomae:{whole / 'best'}",
        clip=ClipSpec(frames=4, size=(16, 16)),
        trained_on=["drawn"],
        data={"sources": [{"manifest": "named.csv", "frames": 4}], "workers": 0},
        visual={"trainable": trainable},
        train={"batch": 4, "steps": 2},
    )
    for _ in small_run(parse(Recipe, table), clips, tmp_path / "store").train(tmp_path / "tuned"):
        pass
    classifier = SupervisedClassifier.load(str(tmp_path / "tuned/last"), device="cpu")
    assert classifier.labels == ("kind 0", "kind 1")
    assert classifier.classify(clips / "kept/4.mp4").label in classifier.labels
    begun, tuned = load_visual(whole / "best"), classifier.base.model.encoder.visual
    video = torch.randn(1, 4, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(begun.features(video), tuned.features(video)) == (trainable == "head")
    assert set(read_files_seen(whole / "best")) <= set(read_files_seen(tmp_path / "tuned/last"))


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"mask": {"ratio": 1.0}}, "lies between 0 and 1"),
        ({"mask": {"ratio": 0.99}}, "masks 16 of 16 places"),
        ({"mask": {"kind": "tubes"}}, "did you mean 'tube'"),
        ({"encoder": {"class_token": "frame"}}, "class_token is 'frame'"),
        ({"encoder": {"attention": "factorised_self"}}, "only 'joint' can have that"),
        ({"decoder": {"width": 15}}, "divide the width"),
        ({"data": {"sources": [{"files": "nowhere"}]}}, "no video is at"),
        ({"data": {"sources": [{}]}}, "give one of the two"),
        ({"data": {"sources": [{"files": "*/*.mp4"}]}}, "2 of the 2 files of validation.sets 'kept' are learnt from"),
        ({"validation": {"sets": []}}, "there is one set at least"),
        ({"optim": {"layer_decay": 0.5}}, "leave it at 1"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(clips, tables, said):
    with pytest.raises(ConfigError, match=said.replace("'", ".").replace("(", r"\(")):
        _run(clips, **tables)


def test_a_tower_says_what_it_learnt_in(clips, whole, tmp_path):
    narrow = _go(clips, tmp_path / "out", train={"steps": 1, "precision": "bf16"})
    assert [read_config(out / "last").precision for out in (narrow, whole)] == ["bf16", "fp32"]


def test_single_pictures_are_masked_anywhere(tmp_path):
    """MAE: clips of one frame, a token of one frame, three quarters of all tokens hidden."""
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        (tmp_path / f"{number % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"{number % 2}/{number}.png")
    sets = {"sets": [{"name": "kept", "files": "1"}], "every_steps": 0}
    data = {"sources": [{"files": "0"}], "workers": 0}
    out = _go(
        tmp_path,
        tmp_path / "out",
        clip={"frames": 1, "size": [16, 16]},
        encoder={"tubelet": 1},
        mask={"kind": "random", "ratio": 0.75},
        validation=sets,
        data=data,
        train={"steps": 1},
    )
    assert json.loads((out / "last/config.json").read_text())["clip"]["frames"] == 1


class TestMasks:
    def test_a_tube_hides_the_same_places_in_every_step(self):
        mask = draw_mask(MaskConfig(), clips=3, steps=4, places=20, generator=torch.Generator().manual_seed(0))
        assert mask.masked.shape == (3, 72)
        places = mask.masked.reshape(3, 4, 18) % 20
        assert (places == places[:, :1]).all()
        assert not torch.equal(places[0, 0], places[1, 0])
        both = torch.cat([mask.visible, mask.masked], dim=1).sort(1).values
        assert torch.equal(both, torch.arange(80).expand(3, 80))

    def test_random_ones_differ_from_step_to_step(self):
        config = MaskConfig(kind="random", ratio=0.75)
        mask = draw_mask(config, clips=2, steps=4, places=20, generator=torch.Generator().manual_seed(0))
        assert mask.masked.shape == (2, 60)
        assert len({((mask.visible[0] // 20) == step).sum().item() for step in range(4)}) > 1


def test_the_loss_is_that_of_the_masked_patches_alone():
    target, masked = torch.randn(2, 5, 6), torch.tensor([[0, 3], [1, 4]])
    predicted = torch.randn(2, 2, 6)
    wanted = sum(
        (predicted[row, place] - target[row, number]).square().sum()
        for row in range(2)
        for place, number in enumerate(masked[row].tolist())
    )
    torch.testing.assert_close(masked_mse(predicted, target, masked=masked), wanted / 24)
    patches = normalise_patches(torch.rand(2, 3, 12), channels=3).reshape(2, 3, 3, 4)
    torch.testing.assert_close(patches.mean(3), torch.zeros(2, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(patches.std(3), torch.ones(2, 3, 3), atol=1e-4, rtol=0)
    assert normalise_patches(torch.full((1, 1, 12), 0.25), channels=3).abs().max() == 0
