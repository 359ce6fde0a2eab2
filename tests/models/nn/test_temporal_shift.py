"""What a temporal shift takes hold of in other libraries' networks: a small network for each line of the table."""

import pytest
import torch
from torch import nn

from clipact.errors import ConfigError
from clipact.models.hub.open_clip import OpenClipImage
from clipact.models.hub.timm import TimmImage
from clipact.models.nn.temporal_shift import BRANCHES
from clipact.models.towers.frame_aggregator import FrameAggregator
from clipact.models.towers.tower import Head
from tests.tiny_open_clip import MODELS, timm_inside

SWIN = {"img_size": 56, "embed_dim": 16, "depths": [1, 2], "num_heads": [1, 2], "window_size": 7}
EVA = {"img_size": 28, "depth": 2, "embed_dim": 32, "num_heads": 2}
FASTVIT = {"layers": [1, 1, 1, 1], "embed_dims": [8, 16, 32, 32], "mlp_ratios": [2, 2, 2, 2]}


def _timm(name, **settings):
    return TimmImage(TimmImage.Config(name=name, settings=settings, head=Head.Config(dim=8, blocks=0)))


def _open_clip(table):
    return OpenClipImage(OpenClipImage.Config(model=table))


# A network of the table, an image tower around it, pixels along a side, and how many branches it has.
TOWERS = [
    ("open_clip.transformer.VisionTransformer", lambda: _open_clip(MODELS["vit"][0]), 32, 2),
    ("open_clip.modified_resnet.ModifiedResNet", lambda: _open_clip(MODELS["resnet"][0]), 64, 4),
    ("timm.models.vision_transformer.VisionTransformer", lambda: _timm("test_vit", img_size=32), 32, 6),
    ("timm.models.vision_transformer.VisionTransformer", lambda: _open_clip(MODELS["siglip"][0]), 160, 6),
    ("timm.models.eva.Eva", lambda: _timm("eva02_tiny_patch14_224", **EVA), 28, 2),
    ("timm.models.swin_transformer.SwinTransformer", lambda: _timm("swin_tiny_patch4_window7_224", **SWIN), 56, 3),
    ("timm.models.convnext.ConvNeXt", lambda: _timm("test_convnext"), 64, 9),
    ("timm.models.convnext.ConvNeXt", lambda: _open_clip(timm_inside("test_convnext")), 64, 9),
    ("timm.models.resnet.ResNet", lambda: _timm("test_resnet"), 64, 4),
    ("timm.models.efficientnet.EfficientNet", lambda: _timm("mobilenetv2_035"), 64, 10),
    ("timm.models.fastvit.FastVit", lambda: _timm("fastvit_sa12", **FASTVIT), 64, 4),
]


def test_every_line_of_the_table_has_an_example():
    assert {name for name, *_ in TOWERS} == set(BRANCHES)


@pytest.fixture(scope="module", params=TOWERS, ids=lambda entry: entry[0])
def case(request):
    """An image tower, and two clips of three frames for it."""
    _, make, side, count = request.param
    torch.manual_seed(0)
    image, video = make(), torch.randn(2, 3, 3, side, side)
    for parameter in image.parameters():  # what begins at zero is to be seen
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    for module in image.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        image.train()(video.flatten(0, 1))
    assert len(image.residual_branches) == count
    return image.eval(), video


def _shifted(image):
    return FrameAggregator(image, FrameAggregator.Config(shift=0.25)).eval()


@torch.inference_mode()
def test_a_branch_sees_one_picture_a_row_with_its_channels_where_the_table_says(case):
    image, video = case
    seen = []

    def look(module, inputs):
        (axis,) = {axis for branch, axis in image.residual_branches if branch is module}
        first = next(m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.LayerNorm, nn.BatchNorm2d)))
        channels = first.weight.shape[1] * first.groups if isinstance(first, nn.Conv2d) else first.weight.shape[0]
        seen.append((len(inputs[0]), inputs[0].shape[axis] - channels))

    hooks = [branch.register_forward_pre_hook(look) for branch, _ in image.residual_branches]
    image(video.flatten(0, 1))
    for hook in hooks:
        hook.remove()
    assert seen == [(6, 0)] * len(image.residual_branches)


@torch.inference_mode()
def test_the_shift_reaches_the_output_through_the_branches_alone(case):
    image, video = case
    plain, shifted = FrameAggregator(image).eval(), _shifted(image)
    assert not torch.allclose(shifted(video), plain(video), atol=1e-4)
    hooks = [
        branch.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
        for branch, _ in image.residual_branches
    ]
    without_branches = shifted(video), plain(video)
    for hook in hooks:
        hook.remove()
    assert torch.equal(*without_branches)


@torch.inference_mode()
def test_frames_see_their_neighbours_and_clips_do_not(case):
    image, video = case
    tower = _shifted(image)
    assert not tower.order_free
    assert not torch.allclose(tower(video), tower(video.flip(1)), atol=1e-4)
    alone = torch.cat([tower(clip[None]) for clip in video])
    torch.testing.assert_close(tower(video), alone, atol=1e-5, rtol=1e-5)


# Rows that are no pictures; a network that is not listed; one that is, of other blocks.
@pytest.mark.parametrize(("name", "network"), [
    ("mobilevit_xxs", r"byobnet\.ByobNet"), ("test_nfnet", r"nfnet\.NormFreeNet"), ("resnest14d", r"resnet\.ResNet"),
])  # fmt: skip
def test_other_networks_are_refused_and_the_known_named(name, network):
    with pytest.raises(ConfigError, match=rf"not known for a timm\.models\.{network}.*take open_clip's VisionTransf"):
        _shifted(_timm(name))
