"""The head that looks: it begins as a mean, its weights are what it looks at, and they are drawn over the frames."""

import numpy as np
import pytest
import torch
from einops import reduce

from clipact.clip_spec import ClipSpec, FrameStamp
from clipact.errors import ConfigError
from clipact.models.dual_encoder import DualEncoder
from clipact.models.hub.timm import TimmImage
from clipact.models.save_checkpoint import save_model
from clipact.models.towers import visual_from
from clipact.models.towers.attention_pool import AttentionPoolHead, AttentionPoolTower
from clipact.models.towers.backbone_head import hash_backbone
from clipact.models.towers.efficientnet_lite import EfficientNetLite
from clipact.models.towers.label_embeddings import LabelEmbeddings
from clipact.models.towers.tower import Head
from clipact.video.clip import Clip
from clipact.video.draw import overlay_maps
from tests.contracts.test_towers import IMAGE
from tests.video.drawing import draw_video

SPEC = ClipSpec(frames=3, size=(64, 96))


def _tower():
    torch.manual_seed(0)
    image = EfficientNetLite(EfficientNetLite.Config(variant="lite0", head=Head.Config(dim=8, hidden=8)))
    config = AttentionPoolTower.Config(head=AttentionPoolHead.Config(dim=8, width=12, heads=3))
    return AttentionPoolTower(image, config, spec=SPEC).eval()


@torch.inference_mode()
def test_it_begins_as_the_mean_over_all_places():
    tower, video = _tower(), torch.randn(2, 3, 3, 64, 96)
    places = tower.features(video)
    assert places.shape == (2, 3, 2, 3, 1280)
    pooled = reduce(tower.image.features(video[0]), "t f -> f", "mean")
    torch.testing.assert_close(places[0].mean((0, 1, 2)), pooled, atol=1e-5, rtol=1e-4)
    mean = tower.head.project(tower.head.value(tower.head.norm(places)).mean((1, 2, 3)))
    torch.testing.assert_close(tower(video), mean, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_head_looks_where_its_query_finds_its_key():
    torch.manual_seed(0)
    head = AttentionPoolHead(6, frames=2, config=AttentionPoolHead.Config(dim=4, width=4, heads=1))
    places = torch.randn(1, 2, 3, 3, 6)
    head.query.copy_(50 * head.key(head.norm(places))[0, 1, 2, 0][None])
    seen = head.weights(places)
    assert seen.sum().item() == pytest.approx(1)
    assert seen.shape == (1, 1, 2, 3, 3)
    products = torch.einsum("t h w d, d -> t h w", head.key(head.norm(places))[0], head.query[0])
    torch.testing.assert_close(seen[0, 0].flatten(), products.flatten().softmax(0), atol=1e-6, rtol=1e-5)
    values = torch.einsum("t h w, t h w d -> d", seen[0, 0], head.value(head.norm(places))[0])
    torch.testing.assert_close(head(places)[0], head.project(values), atol=1e-5, rtol=1e-5)


def test_its_kept_features_are_not_taken_for_those_of_frames():
    attentive, frames = (
        visual_from({"tower": kind, "image": {"tower": "open_clip", **IMAGE["open_clip"]}}, SPEC)
        for kind in ("attention_pool", "frame_aggregator")
    )
    frames.image.load_state_dict(attentive.image.state_dict())
    assert hash_backbone(attentive) != hash_backbone(frames)


def test_what_has_no_places_is_refused():
    with pytest.raises(ConfigError, match="TimmImage gives no vector a place"):
        AttentionPoolTower(TimmImage(TimmImage.Config(name="test_vit", settings={"img_size": 32})))
    with pytest.raises(ConfigError, match="heads is 3"):
        AttentionPoolHead.Config(width=8, heads=3)


def test_the_brightest_glow_is_where_most_was_looked():
    frames = np.full((2, 40, 60, 3), 100, dtype=np.uint8)
    clip = Clip(frames=frames, stamps=(FrameStamp(0, 0.0), FrameStamp(1, 0.1)), source="a", decoder="pyav")
    maps = np.zeros((2, 4, 6))
    maps[1, 2, 4] = 0.5
    drawn = overlay_maps(clip, maps).frames
    assert (drawn[0] == 100).all()
    row, column = np.unravel_index((drawn[1, ..., 0].astype(int) - drawn[1, ..., 2]).argmax(), (40, 60))
    assert (row // 10, column // 10) == (2, 4)
    assert (clip.frames == 100).all()
    assert (overlay_maps(clip, np.full((2, 4, 6), 0.1)).frames == 100).all(), "a look at everything alike shows nothing"


def test_a_command_draws_it(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from clipact.cli.app import app

    model = DualEncoder(_tower(), LabelEmbeddings(LabelEmbeddings.Config(labels=("a", "b"), dim=8)))
    folder = save_model(model, tmp_path / "looks", name="looks", trained_on=("drawn",))
    draw_video(tmp_path / "v.mp4", frames=6)
    words = ["frames", str(tmp_path / "v.mp4"), "-o", str(tmp_path / "looks.png"), "-m", str(folder)]
    plain = CliRunner().invoke(app, words)
    before = (tmp_path / "looks.png").read_bytes()
    assert (plain.exit_code, CliRunner().invoke(app, [*words, "--attention"]).exit_code) == (0, 0)
    assert (tmp_path / "looks.png").read_bytes() != before
    again = CliRunner().invoke(app, [*words[:-1], "mini", "--attention"])
    assert "attention_pool tower" in str(again.exception)
