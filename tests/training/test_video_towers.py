"""Every kind of visual tower is trained on sentences, saved, and answers from its folder."""

import numpy as np
import pytest
import timm
import torch
from torch.testing import assert_close

from clipact.classifier import ZeroShotClassifier
from clipact.errors import ConfigError
from clipact.training.start import Start, make_encoder
from tests.tiny_open_clip import open_clip_folder
from tests.tiny_transformers import VIDEO, transformers_folder
from tests.training.small_run import small_recipe, small_run

CLIP = {"frames": 4, "size": [32, 32]}
FRAMES = {"tower": "frames", "aggregator": "transformer", "settings": {"heads": 2, "layers": 1}}
STARTS = {
    "an aggregator": ("small", {"visual": FRAMES}),
    "vivit": ("small", {"clip": CLIP, "visual": {"tower": "vivit", "width": 16, "heads": 2, "layers": 1, "hidden": 16,
                                                 "head": {"dim": 16, "blocks": 0}}}),
    "swin": ("small", {"clip": CLIP, "visual": {"tower": "swin3d", "window": [2, 1, 1], "head": {"dim": 16}}}),
    "open_clip": ("vit", {}),
    "open_clip, shifted": ("vit", {"visual": {"tower": "frames", "aggregator": "lstm", "shift": 0.125}}),
    "open_clip, inflated": ("vit", {"clip": CLIP, "visual": {"tower": "vivit", "inflate": "central"}}),
    "siglip": ("siglip", {}),
    "transformers' clip": ("transformers clip", {}),
    "timm": ("timm", {"visual": {"tower": "frames", "image": {"tower": "timm", "name": "test_vit", "head": {"dim": 16},
                                                              "settings": {"img_size": 32}}}}),
    **{family: (f"video {family}", {"visual": {"tower": "transformers", "head": {"dim": 16}}}) for family in VIDEO},
}  # fmt: skip


@pytest.fixture
def start(request, small, tmp_path):
    kind, table = STARTS[request.param]
    if kind == "small":
        return {"model": str(small), **table}
    if kind == "timm":
        torch.save(timm.create_model("test_vit", img_size=32).state_dict(), tmp_path / "vit.pth")
        return {"model": str(small), "parts": {"image": str(tmp_path / "vit.pth")}, "clip": CLIP, **table}
    if kind.startswith("video"):
        weights = transformers_folder(tmp_path / kind, kind.split()[1])
        return {"model": str(small), "parts": {"visual": f"transformers:{weights}"}, **table}
    if kind.startswith("transformers"):
        return {"model": f"transformers:{transformers_folder(tmp_path / kind, kind.split()[1])}", **table}
    return {"model": f"open_clip:local-dir:{open_clip_folder(tmp_path / kind, kind)}", **table}


@pytest.mark.parametrize("start", STARTS, indirect=True)
def test_a_tower_is_trained_saved_and_answers(start, drawn, small, tmp_path):
    clips = [{"manifest": "clips.csv", "frames": 4, "clips": 1}]
    recipe = small_recipe(
        small,
        start=start,
        data={"sources": clips, "augment": {}},
        train={"batch": 3, "steps": 2, "accumulate": 1},
        optim={"warmup_steps": 0, "average_decay": None},
        judge={"sets": []},
    )
    run = small_run(recipe, drawn, tmp_path / "store")
    for _ in run.train(tmp_path / "out"):
        pass
    classifier = ZeroShotClassifier.load(str(tmp_path / "out" / "last"), labels=["wave", "bend"])
    frames = np.random.default_rng(0).integers(0, 256, (4, *classifier.spec.size, 3), dtype=np.uint8)
    found = classifier.classify_frames(frames)
    assert {entry.label for entry in found.top(2)} == {"wave", "bend"}
    video = torch.randn(2, 4, 3, *classifier.spec.size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        trained, saved = run.encoder.eval(), classifier.model.encoder
        assert_close(trained.encode_video(video), saved.encode_video(video), atol=1e-6, rtol=0)
        assert_close(trained.encode_text(["a man waves"]), saved.encode_text(["a man waves"]), atol=1e-6, rtol=0)


def test_the_first_step_of_an_aggregator_sees_what_the_model_saw(small):
    plain = make_encoder(Start(model=str(small)), seed=0).eval()
    grown = make_encoder(Start(model=str(small), visual=FRAMES), seed=0).eval()
    video = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert_close(grown.encode_video(video), plain.encode_video(video), atol=1e-6, rtol=0)
    assert torch.equal(grown.log_scale, plain.log_scale)


def test_a_model_whose_sentences_depend_on_the_video_is_not_trained(drawn, small, tmp_path):
    recipe = small_recipe(small, start={"model": f"transformers:{transformers_folder(tmp_path / 'xclip', 'xclip')}"})
    with pytest.raises(ConfigError, match="neither side can be encoded by itself"):
        small_run(recipe, drawn, tmp_path / "store")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"model": "mini", "text": {"tower": "bert"}}, "leave one out"),
        ({"scale": 2.0}, "start takes model, or"),
        ({"model": "small", "visual": {"tower": "frames", "inflate": "central"}}, "takes tower = 'vivit'"),
        ({"model": "small", "visual": {"tower": "vivit", "inflate": "central"}}, "plain vision transformer"),
    ],
)
def test_starts_that_make_no_sense_are_refused(table, message, small):
    if table.get("model") == "small":
        table = table | {"model": str(small)}
    with pytest.raises(ConfigError, match=message):
        make_encoder(Start(**table), seed=0)
