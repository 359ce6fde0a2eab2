"""What every tower in the tables promises; a new line in a table is tested at once, or fails for want of an example."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from clipact.clip_spec import ClipSpec
from clipact.errors import ModelError
from clipact.models import towers
from clipact.models.dual_encoder import DualEncoder
from clipact.models.towers.attention_pool import AttentionPoolTower
from clipact.models.towers.frame_aggregator import AGGREGATORS
from clipact.models.towers.tower import ConditionsText
from tests.tiny import TinyText, tiny_tokenizer
from tests.tiny_open_clip import MODELS
from tests.tiny_transformers import MODELS as THEIRS
from tests.tiny_transformers import VIDEO as THEIR_VIDEO
from tests.tiny_transformers import save_words
from tests.train import small_run  # noqa: F401  puts "small" into the table, whatever is collected first

SPEC = ClipSpec(frames=4, size=(32, 32))
HEAD = {"dim": 16, "hidden": 16}
CLIP = MODELS["vit"][0]


def _half(family, side):
    return {"model_type": family, "projection_dim": 16, side: THEIRS[family][0][side]}


IMAGE = {
    "efficientnet_lite": {"variant": "lite0", "head": HEAD},
    "open_clip": {"model": {key: CLIP[key] for key in ("embed_dim", "vision_cfg", "quick_gelu")}},
    "transformers": {"model": _half("clip", "vision_config"), "preprocess": THEIRS["clip"][1]},
    "timm": {"name": "test_vit", "settings": {"img_size": 32}, "head": HEAD},
    "small": {"head": HEAD},  # the tests' own
}
SENTENCES = ["a man drinks", "reading", "she is walking in a very long street, slowly"]
TEXT = {
    "bert": {"vocabulary": 64, "width": 16, "layers": 2, "heads": 2, "hidden": 32, "max_tokens": 32, "head": HEAD},
    "open_clip": {"model": {key: CLIP[key] for key in ("embed_dim", "text_cfg", "quick_gelu")}},
    "transformers": {"model": _half("clip", "text_config")},
    "label_embeddings": {"dim": 16, "labels": SENTENCES},
}


def _shaken(tower):
    """The tower with every parameter moved, so that what starts at zero is seen too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return tower.eval()


VIT = {"width": 32, "layers": 2, "heads": 2, "hidden": 64}
SHIFTED = ("efficientnet_lite", "open_clip", "transformers", "timm")
THEIRS_SEE = {"tower": "transformers"}
TIMESFORMER = {"model_type": "timesformer", **THEIRS["timesformer"][0]}
VIDEO = {
    "frame_aggregator": [
        *({"image": {"tower": "small", **IMAGE["small"]}, "aggregator": name} for name in AGGREGATORS),
        *({"image": {"tower": name, **settings}} for name, settings in IMAGE.items()),
        *(
            {
                "image": {
                    "tower": "transformers",
                    "model": _half(family, "vision_config"),
                    "preprocess": THEIRS[family][1],
                }
            }
            for family in ("siglip", "siglip2")
        ),
        *({"image": {"tower": name, **IMAGE[name]}, "shift": 0.125} for name in SHIFTED),
        {
            "image": {"tower": "efficientnet_lite", **IMAGE["efficientnet_lite"]},
            "inserts": {"blocks.9": "se", "blocks.5": "non_local", "last": "cbam"},
        },
    ],
    "attention_pool": [
        {"image": {"tower": name, **IMAGE[name]}, "head": {"dim": 16, "width": 16, "heads": 2}}
        for name in ("efficientnet_lite", "open_clip", "transformers")
    ],
    "vivit": [
        {**VIT, "attention": "joint", "class_token": "clip"},
        {**VIT, "attention": "joint", "positions": "sines", "norm_first": True},
        {**VIT, "attention": "joint", "positions": "number_sines", "class_token": "none"},
        {**VIT, "attention": "factorised_encoder", "time_layers": 1, "tubelet": 1},
        {**VIT, "attention": "factorised_self", "activation": "quick_gelu"},
    ],
    "swin3d": [{"width": 8, "depths": [2, 2], "heads": [1, 2], "window": [8, 4, 4]}],
    "i3d": [
        {
            "head": HEAD,
            "inserts": {"mixed_3b": "se", "mixed_4b": "cbam", "mixed_4e": "space_time", "mixed_5c": "non_local"},
        }
    ],
    "transformers": [
        *({"model": {"model_type": family, **THEIRS[family][0]}, "head": HEAD} for family in THEIR_VIDEO),
        *(
            {"model": {**TIMESFORMER, "attention_type": kind}, "head": HEAD}
            for kind in ("space_only", "joint_space_time")
        ),
    ],
    "xclip": [{"model": {key: value for key, value in THEIRS["xclip"][0].items() if key != "text_config"}}],
}
# What pools an image tower's maps, and is not asked below a head that looks at the maps themselves.
POOLS = ("image.head.", "image.network.proj", "image.project.", "image.body.post_layernorm.")


def _video_tables():
    for name in towers.VIDEO_TOWERS:
        for table in VIDEO[name]:  # KeyError: give the new tower an example above
            yield {"tower": name, **table}


def _name(table):
    words = (table["tower"], table.get("image", {}).get("tower"), table.get("model", {}).get("model_type"))
    words += (table.get("aggregator"), table.get("attention"), table.get("model", {}).get("attention_type"))
    return "-".join(filter(None, words))


@pytest.fixture(params=_video_tables(), ids=_name)
def video_tower(request, video):
    torch.manual_seed(0)
    tower = _shaken(towers.visual_from(request.param, SPEC))
    for module in tower.modules():  # random weights shrink a picture to nothing unless batch norm knows them
        if isinstance(module, _BatchNorm):
            module.momentum = 1.0
    tower.train()(video)
    return tower.eval()


@pytest.fixture(params=towers.TEXT_TOWERS)
def text_tower(request, tmp_path):
    torch.manual_seed(0)
    if request.param == "transformers":
        save_words(tmp_path, "clip")
    else:
        tiny_tokenizer(tmp_path / towers.TOKENIZER)
    return _shaken(towers.text_from({"tower": request.param, **TEXT[request.param]}, tmp_path))


@pytest.fixture
def video():
    return torch.randn(3, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_clip_gives_the_same_features_twice(video_tower, video):
    with torch.inference_mode():
        first, second = video_tower(video), video_tower(video)
    assert first.shape == (3, video_tower.dim)
    assert torch.equal(first, second)


def test_a_batch_of_clips_equals_its_singles(video_tower, video):
    video_tower, video = video_tower.double(), video.double()  # norms of one random pixel blow up 32 bits' differences
    with torch.inference_mode():
        together = video_tower(video)
        alone = torch.cat([video_tower(clip[None]) for clip in video])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8])
def test_other_numbers_of_frames_work_or_are_refused_in_a_sentence(video_tower, frames):
    """And where they work, a clip's neighbours change nothing."""
    video = torch.randn(3, frames, 3, 32, 32, generator=torch.Generator().manual_seed(frames)).double()
    video_tower = video_tower.double()
    refused = ""
    with torch.inference_mode():
        try:
            embedded = [F.normalize(video_tower(video[rows]), dim=1) for rows in ([0, 1, 2], [1], [1, 0])]
        except ModelError as error:
            refused = str(error)
    if refused:
        assert f"{frames} frames" in refused
        assert "multiples" in refused
    else:
        together, alone, turned = embedded
        torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(turned[:1], alone, atol=1e-5, rtol=0)


def test_in_16_bits_embeddings_stay_near_and_a_clip_by_itself(video_tower, video):
    if any(isinstance(module, _BatchNorm) for module in video_tower.modules()):
        pytest.skip("norms of one random pixel blow up any difference; of mini tests/test_mini.py asks the same")
    encoder = DualEncoder(video_tower, TinyText(video_tower.dim)).eval()
    with torch.inference_mode():
        exact = encoder.encode_video(video)
        encoder.precision = "bf16"
        together, alone = encoder.encode_video(video), torch.cat([encoder.encode_video(clip[None]) for clip in video])
    assert together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3), atol=1e-5, rtol=0)
    assert not torch.equal(together, exact)
    assert (together * exact).sum(1).min() > 0.99
    assert (together * alone).sum(1).min() > 0.999


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_clips_have_the_same_features_on_other_devices(device, video):
    if not getattr(torch, device).is_available():
        pytest.skip(f"this machine has no {device}")
    for table in _video_tables():
        torch.manual_seed(0)
        tower = _shaken(towers.visual_from(table, SPEC))
        with torch.inference_mode():
            here, there = tower(video), tower.to(device)(video.to(device)).cpu()
        torch.testing.assert_close(there, here, atol=1e-3, rtol=1e-3, msg=lambda said, table=table: f"{table}: {said}")


def test_the_order_of_frames_matters_unless_it_is_declared_free(video_tower, video):
    video_tower, video = video_tower.double(), video.double()
    with torch.inference_mode():
        forward, backward = video_tower(video), video_tower(video.flip(1))
    same = torch.allclose(forward, backward, atol=1e-5, rtol=1e-5)
    assert same == video_tower.order_free


def test_every_parameter_of_a_video_tower_gets_a_gradient(video_tower, video):
    if isinstance(video_tower, ConditionsText):
        for features in video_tower.prompted(video_tower.context(video), torch.randn(2, video_tower.dim)):
            features.square().sum().backward(retain_graph=True)
    else:
        video_tower(video).square().sum().backward()
    idle = POOLS if isinstance(video_tower, AttentionPoolTower) else ()
    assert not [
        name
        for name, p in video_tower.named_parameters()
        if (p.grad is None or not p.grad.abs().sum() > 0) and not name.startswith(idle)
    ]


def test_a_video_tower_is_made_again_from_its_table(video_tower, video):
    again = towers.visual_from(towers.describe(video_tower), video_tower.spec)
    again.load_state_dict(video_tower.state_dict())
    with torch.inference_mode():
        assert torch.equal(again.eval()(video), video_tower(video))


def test_a_sentence_gives_the_same_features_alone_and_among_others(text_tower):
    with torch.inference_mode():
        together = text_tower(text_tower.tokenize(SENTENCES))
        alone = torch.cat([text_tower(text_tower.tokenize([sentence])) for sentence in SENTENCES])
    assert together.shape == (3, text_tower.dim)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_every_parameter_of_a_text_tower_gets_a_gradient(text_tower):
    text_tower(text_tower.tokenize(SENTENCES)).square().sum().backward()
    assert not [n for n, p in text_tower.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_a_text_tower_is_made_again_from_its_table_and_folder(text_tower, tmp_path):
    folder = tmp_path / "saved"
    folder.mkdir()
    text_tower.save_tokenizer(folder)
    again = towers.text_from(towers.describe(text_tower), folder)
    again.load_state_dict(text_tower.state_dict())
    with torch.inference_mode():
        assert torch.equal(again.eval()(again.tokenize(SENTENCES)), text_tower(text_tower.tokenize(SENTENCES)))
