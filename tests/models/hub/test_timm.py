"""timm's networks behind our image tower: the same features and the same pictures."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from clipact.config import parse
from clipact.errors import ConfigError, ModelError
from clipact.models.dual_encoder import normalise_frames
from clipact.models.hub.timm import TimmImage
from clipact.train.initialization import _fill
from clipact.video.transforms import fit_frame

SWIN = {"img_size": 56, "embed_dim": 16, "depths": [1, 2], "num_heads": [1, 2], "window_size": 7}
NETWORKS = {
    "vit": ("test_vit", {"img_size": 32}),
    "swin": ("swin_tiny_patch4_window7_224", SWIN),
    "resnet": ("test_resnet", {}),
    "convnext": ("test_convnext", {}),
    "efficientnet": ("test_efficientnet", {}),
}


def _ours(name, settings=None, **more):
    table = {"name": name, "settings": settings or {}, "head": {"dim": 8, "blocks": 0}, **more}
    return TimmImage(parse(TimmImage.Config, table)).eval()


@pytest.mark.parametrize("kind", NETWORKS)
def test_features_are_timms_own_with_weights_from_its_file(kind, tmp_path):
    name, settings = NETWORKS[kind]
    torch.manual_seed(0)
    theirs = timm.create_model(name, **settings).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    tower = _ours(name, settings)
    _fill(tower, str(tmp_path / "weights.pth"))
    pictures = torch.randn(3, 3, *tower.spec.size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = theirs.forward_head(theirs.forward_features(pictures), pre_logits=True)
        torch.testing.assert_close(tower.features(pictures), expected, rtol=0, atol=1e-6)
    assert expected.std(0).max() > 1e-3
    assert tower(pictures).shape == (3, 8)


@pytest.mark.parametrize(
    ("name", "settings"), [("test_vit", {"img_size": 32}), ("test_resnet", {}), ("vit_tiny_patch16_224", {})]
)
@pytest.mark.parametrize("shape", [(97, 61), (301, 400), (233, 233)])
def test_pictures_are_prepared_as_timm_does(name, settings, shape):
    tower = _ours(name, settings)
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    config = resolve_model_data_config(tower.network, settings)
    expected = create_transform(**config, is_training=False)(Image.fromarray(pixels))
    assert torch.equal(normalise_frames(fit_frame(pixels, tower.spec)[None], tower.spec)[0], expected)


def test_a_convolutional_network_takes_other_sizes_and_a_transformer_says_no():
    assert _ours("test_resnet")(torch.zeros(1, 3, 40, 72)).shape == (1, 8)
    for name, settings in (NETWORKS["vit"], NETWORKS["swin"]):
        with pytest.raises(ModelError, match="this tower takes"):
            _ours(name, settings)(torch.zeros(1, 3, 40, 72))


def test_a_size_that_a_network_fails_on_is_refused_in_a_sentence():
    with pytest.raises(ModelError, match=r"pictures are \(2, 2\) pixels; this tower takes \(160, 160\), and others"):
        _ours("test_convnext")(torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("vit_tinny", {}, "timm has no network 'vit_tinny'; the nearest: .*vit_tiny"),
        ("hf-hub:timm/vit", {}, "timm has no network"),
        ("test_vit", {"depthh": 3}, "cannot make test_vit with"),
        ("test_vit.no_such_tag", {}, "cannot make test_vit.no_such_tag"),
    ],
)
def test_what_timm_cannot_make_is_said(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        _ours(name, settings)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match="does not hold the weights of a TimmImage"):
        _fill(_ours("test_vit", {"img_size": 32}), str(tmp_path / "weights.pth"))
