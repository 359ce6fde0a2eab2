"""Every kind of visual tower is trained on sentences, saved, and answers from its folder."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch.testing import assert_close

from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.clip_spec import ClipSpec
from clipact.errors import ConfigError
from clipact.models import checkpoint, towers, zoo
from clipact.models.save_checkpoint import save_model
from clipact.models.towers.swin3d import KINETICS
from clipact.models.towers.vivit import ViViT
from clipact.train.initialization import InitConfig, PretrainedWeights, make_encoder
from clipact.train.recipe import Recipe, load_recipe
from tests.tiny_open_clip import open_clip_folder
from tests.tiny_transformers import VIDEO, transformers_folder
from tests.train.small_run import small_recipe, small_run

CLIP = {"frames": 4, "size": [32, 32]}
FRAMES = {"tower": "frame_aggregator", "aggregator": "transformer", "settings": {"heads": 2, "layers": 1}}
PARTS = {"text": {"tower": "bert"}, "pretrained": PretrainedWeights(tokenizer="tokenizer.json")}
SMALL_VIVIT = {"tower": "vivit", "width": 16, "heads": 2, "layers": 1, "hidden": 16, "head": {"dim": 16, "blocks": 0}}
STARTS = {
    "an aggregator": ("small", {"visual": FRAMES}),
    **{f"vivit, {said}": ("small", {"clip": CLIP, "visual": {**SMALL_VIVIT, **table}}) for said, table in (
        ("by itself", {}), ("joint", {"attention": "joint"}), ("sines", {"positions": "sines"}),
        ("encoder", {"attention": "factorised_encoder", "time_layers": 1}))},
    "swin": ("small", {"clip": CLIP, "visual": {"tower": "swin3d", "window": [2, 1, 1], "head": {"dim": 16}}}),
    **{name: ("small", {"visual": {"tower": "frame_aggregator", "aggregator": name}})
       for name in ("mean", "max", "attention", "convolution")},
    "open_clip": ("vit", {}),
    "open_clip, shifted": ("vit", {"visual": {"tower": "frame_aggregator", "aggregator": "lstm", "shift": 0.125}}),
    "open_clip, inflated": ("vit", {"clip": CLIP, "visual": {"tower": "vivit", "inflate": "central"}}),
    "siglip": ("siglip", {}),
    "transformers' clip": ("transformers clip", {}),
    "timm": ("timm", {"visual": {"tower": "frame_aggregator",
                                 "image": {"tower": "timm", "name": "test_vit", "head": {"dim": 16},
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
        return {"model": str(small), "pretrained": {"image": str(tmp_path / "vit.pth")}, "clip": CLIP, **table}
    if kind.startswith("video"):
        weights = transformers_folder(tmp_path / kind, kind.split()[1])
        return {"model": str(small), "pretrained": {"visual": f"transformers:{weights}"}, **table}
    if kind.startswith("transformers"):
        return {"model": f"transformers:{transformers_folder(tmp_path / kind, kind.split()[1])}", **table}
    return {"model": f"open_clip:local-dir:{open_clip_folder(tmp_path / kind, kind)}", **table}


@pytest.mark.parametrize("start", STARTS, indirect=True)
def test_a_tower_is_trained_saved_and_answers(start, drawn, small, tmp_path):
    clips = [{"manifest": "clips.csv", "frames": 4, "clips": 1}]
    recipe = small_recipe(
        small,
        init=start,
        data={"sources": clips, "augment": {}},
        train={"batch": 3, "steps": 2},
        optim={"warmup_steps": 0, "ema_decay": None},
        validation={"sets": []},
    )
    run = small_run(recipe, drawn, tmp_path / "store")
    for _ in run.train(tmp_path / "out"):
        pass
    classifier = ZeroShotClassifier.load(str(tmp_path / "out" / "last"), labels=["wave", "bend"])
    frames = np.random.default_rng(0).integers(0, 256, (4, *classifier.spec.size, 3), dtype=np.uint8)
    found = classifier.classify_frames(frames)
    assert {example.label for example in found.top(2)} == {"wave", "bend"}
    video = torch.randn(2, 4, 3, *classifier.spec.size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        trained, saved = run.encoder.eval(), classifier.model.encoder
        assert_close(trained.encode_video(video), saved.encode_video(video), atol=1e-6, rtol=0)
        assert_close(trained.encode_text(["a man waves"]), saved.encode_text(["a man waves"]), atol=1e-6, rtol=0)


def test_the_first_step_of_an_aggregator_sees_what_the_model_saw(small):
    plain = make_encoder(InitConfig(model=str(small)), seed=0).eval()
    grown = make_encoder(InitConfig(model=str(small), visual=FRAMES), seed=0).eval()
    video = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert_close(grown.encode_video(video), plain.encode_video(video), atol=1e-6, rtol=0)
    assert torch.equal(grown.log_scale, plain.log_scale)


def test_the_vivit_recipe_begins_as_the_image_transformer_on_a_still_clip(tmp_path):
    path = Path(__file__).parents[2] / "eval/recipes/vivit.toml"
    model = f"open_clip:local-dir:{open_clip_folder(tmp_path / 'vit', 'vit')}"
    recipe = load_recipe(path, Recipe, changes=[f"init.model={model}"])
    begun, image = make_encoder(recipe.init, seed=0).eval(), zoo.load_model(model, device="cpu").encoder
    assert isinstance(begun.visual, ViViT)
    assert recipe.data.sources[0].frames == begun.spec.frames
    still = torch.randn(2, 1, 3, *begun.spec.size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        seen = begun.encode_video(still.expand(-1, begun.spec.frames, -1, -1, -1))
        assert_close(seen, image.encode_video(still), atol=1e-5, rtol=0)


def test_weights_of_swin_bring_their_way_of_preparing_clips(small, tmp_path):
    sizes = {"width": 8, "depths": (1, 1), "heads": (1, 2), "window": (2, 7, 7), "head": {"dim": 16}}
    visual = {"tower": "swin3d", **sizes}
    tower = towers.visual_from(visual, ClipSpec(frames=4, size=(56, 56)))
    torch.save(tower.network.state_dict(), tmp_path / "swin.pth")
    named = {"model": str(small), "visual": visual, "pretrained": PretrainedWeights(visual=str(tmp_path / "swin.pth"))}
    assert make_encoder(InitConfig(**named), seed=0).spec == KINETICS
    own = ClipSpec(frames=4, size=(56, 56))
    assert make_encoder(InitConfig(**named, clip=own), seed=0).spec == own


def test_a_model_whose_sentences_depend_on_the_video_is_not_trained(drawn, small, tmp_path):
    recipe = small_recipe(small, init={"model": f"transformers:{transformers_folder(tmp_path / 'xclip', 'xclip')}"})
    with pytest.raises(ConfigError, match="neither side can be encoded by itself"):
        small_run(recipe, drawn, tmp_path / "store")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"model": "mini", "text": {"tower": "bert"}}, "leave one out"),
        ({"scale": 2.0}, "init takes model, or"),
        ({"model": "small", "visual": {"tower": "frame_aggregator", "inflate": "central"}}, "takes tower = 'vivit'"),
        ({"model": "small", "visual": {"tower": "vivit", "inflate": "central"}}, "plain vision transformer"),
        ({**PARTS, "visual": {"tower": "vivit", "inflate": "central"}}, "inflate is given without init.model"),
    ],
)
def test_starts_that_make_no_sense_are_refused(table, message, small):
    if table.get("model") == "small":
        table = table | {"model": str(small)}
    with pytest.raises(ConfigError, match=message):
        make_encoder(InitConfig(**table), seed=0)


KEPT = "init.model is taken as it is"
INFLATED = {"tower": "vivit", "inflate": "central"}
THEIRS = {"tower": "transformers"}


@pytest.mark.parametrize(
    ("table", "idle", "message"),
    [
        ({"clip": ClipSpec()}, "clip", KEPT),
        *(
            ({"pretrained": PretrainedWeights(**{part: "file"})}, f"pretrained.{part}", KEPT)
            for part in ("visual", "image")
        ),
        *(
            (
                {"pretrained": PretrainedWeights(**{part: "file"}), "visual": visual},
                f"pretrained.{part}",
                "a text tower and a tokenizer",
            )
            for part in ("text", "tokenizer")
            for visual in (FRAMES, THEIRS)
        ),
        *(
            (
                {"pretrained": PretrainedWeights(**{part: "file"}), "visual": INFLATED},
                f"pretrained.{part}",
                "init.model's own weights",
            )
            for part in ("visual", "image")
        ),
        (
            {"pretrained": PretrainedWeights(visual="transformers:a/b", image="file"), "visual": THEIRS},
            "pretrained.image",
            "the whole tower",
        ),
        (
            {"pretrained": PretrainedWeights(text="a", tokenizer="b"), "clip": ClipSpec()},
            "clip and init.pretrained.text and",
            KEPT,
        ),
    ],
)
def test_what_would_have_no_effect_beside_a_model_is_refused(table, idle, message):
    with pytest.raises(ConfigError, match=rf"init\.{idle} .*would have no effect: .*{message}.*leave that out"):
        InitConfig(model="mini", **table)


def test_a_transformers_tower_without_a_model_takes_no_image_either():
    parts = PretrainedWeights(visual="transformers:a/b", image="file", tokenizer="tokenizer.json")
    with pytest.raises(ConfigError, match=r"init\.pretrained\.image would have no effect"):
        InitConfig(visual=THEIRS, text={"tower": "bert"}, pretrained=parts)


@pytest.fixture(scope="module")
def shifted(tmp_path_factory):
    """The folder of a model whose frames see their neighbours."""
    folder = tmp_path_factory.mktemp("models")
    start = InitConfig(
        model=f"open_clip:local-dir:{open_clip_folder(folder / 'vit', 'vit')}",
        visual={"tower": "frame_aggregator", "aggregator": "lstm", "shift": 0.25},
    )
    return save_model(make_encoder(start, seed=0), folder / "shifted", name="shifted")


@pytest.mark.parametrize(
    ("said", "shift"), [({}, 0.25), ({"shift": 0.25}, 0.25), ({"shift": 0.5}, 0.5), ({"shift": 0}, 0)]
)
@torch.inference_mode()
def test_a_tower_around_a_shifted_models_image_tower_is_what_is_saved_of_it(shifted, said, shift, tmp_path):
    made = make_encoder(InitConfig(model=str(shifted), visual={"tower": "frame_aggregator", **said}), seed=0).eval()
    assert made.visual.config.shift == shift
    saved = checkpoint.load_checkpoint(save_model(made, tmp_path / "again", name="again"))
    video = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made.encode_video(video), saved.encode_video(video))
    before = checkpoint.load_checkpoint(shifted)  # its LSTM adds nothing yet
    same = torch.allclose(made.encode_video(video), before.encode_video(video), atol=1e-5)
    assert same == (shift == 0.25)


def test_a_shifted_model_is_not_inflated(shifted):
    with pytest.raises(ConfigError, match=r"a model without shift.* shifted by 0\.25: begin from"):
        make_encoder(InitConfig(model=str(shifted), visual=INFLATED), seed=0)
