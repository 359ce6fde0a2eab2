"""I3D: a still clip gives the image network's activations, published weights fit, blocks stand where they are named."""

import math

import pytest
import torch
import torch.nn.functional as F
from einops import repeat

from clipact.clip_spec import ClipSpec
from clipact.config import parse
from clipact.errors import ConfigError
from clipact.models.nn.inserts import NonLocal
from clipact.models.towers.i3d import I3D, MINUS_ONE_TO_ONE, PLACES, ConvNorm3d, MaxPool
from clipact.train.initialization import InitConfig, _visual

SPEC = ClipSpec(frames=4, size=(40, 56), mean=(0.5,) * 3, std=(0.5,) * 3)


def _shaken(network):
    """Batch norms with statistics and gains of their own."""
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.1, 0.3)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="module")
def googlenet():
    from torchvision.models import googlenet

    torch.manual_seed(0)
    return _shaken(googlenet(weights=None, aux_logits=False, init_weights=False, transform_input=False))


@pytest.fixture(scope="module")
def inflated(googlenet):
    tower = I3D(I3D.Config(), spec=SPEC)
    tower.load_state_dict(tower.rename(googlenet.state_dict()) | _head(tower))
    return tower.eval()


def _head(tower):
    return {name: value for name, value in tower.state_dict().items() if name.startswith("head.")}


@pytest.mark.parametrize("frames", [1, 8])
@torch.inference_mode()
def test_a_still_clip_gives_googlenets_own_maps_at_every_step(googlenet, inflated, frames):
    pictures, seen = torch.randn(2, 3, *SPEC.size), {}
    hooks = [
        getattr(googlenet, name).register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
        for name in ("conv1", "conv3", "inception3b", "inception4a", "inception5b")
    ]
    googlenet(pictures)
    for hook in hooks:
        hook.remove()
    theirs = dict(
        zip(("conv3d_1a_7x7", "conv3d_2c_3x3", "mixed_3c", "mixed_4b", "mixed_5c"), seen.values(), strict=True)
    )
    x = repeat(pictures, "b c h w -> b c t h w", t=frames)
    for place, layer in inflated.network.layers.items():
        x = layer(x)
        if place in theirs:
            torch.testing.assert_close(x, theirs[place][:, :, None].expand_as(x), atol=1e-5, rtol=1e-4)
    assert x.shape[2] == max(1, frames // 8)
    features = inflated.features(repeat(pictures, "b c h w -> b t c h w", t=frames))
    torch.testing.assert_close(features, theirs["mixed_5c"].mean((2, 3)), atol=1e-5, rtol=1e-4)


def _published(tower):
    """A tower's weights in pytorch-i3d's layout."""
    names = {"branch1": "b0", "branch2.0": "b1a", "branch2.1": "b1b", "branch3.0": "b2a", "branch3.1": "b2b"}
    names |= {"branch4.1": "b3b", ".conv.": ".conv3d.", ".norm.": ".bn.", "conv3d_": "Conv3d_", "mixed_": "Mixed_"}
    weights = {"logits.conv3d.weight": torch.zeros(400, 1024, 1, 1, 1), "logits.conv3d.bias": torch.zeros(400)}
    for name, value in tower.state_dict().items():
        if name.startswith("network.layers."):
            name = name.removeprefix("network.layers.")
            for ours, theirs in names.items():
                name = name.replace(ours, theirs)
            weights[name] = value
    return weights


def test_published_weights_fit_from_a_file(tmp_path):
    torch.manual_seed(0)
    first = _shaken(I3D(I3D.Config(padding="same"), spec=SPEC))
    weights = _published(first)
    assert "Mixed_4f.b2b.bn.running_var" in weights
    torch.save(weights, tmp_path / "rgb.pt")
    table = {"tower": "i3d", "padding": "same", "inserts": {"mixed_4f": "non_local"}}
    init = parse(InitConfig, {"model": "mini", "visual": table, "pretrained": {"visual": str(tmp_path / "rgb.pt")}})
    again = _visual(init, ClipSpec()).eval()
    assert again.spec == MINUS_ONE_TO_ONE
    video = torch.randn(1, 4, 3, 40, 56)
    with torch.inference_mode():  # the non-local block begins as the identity
        assert torch.equal(again.features(video), first.features(video))


def test_weights_with_the_other_padding_are_refused(googlenet):
    with pytest.raises(ConfigError, match="'same', but weights of googlenet take 'edges'"):
        I3D(I3D.Config(padding="same"), spec=SPEC).rename(googlenet.state_dict())
    with pytest.raises(ConfigError, match="'edges', but weights of I3D take 'same'"):
        I3D(I3D.Config(), spec=SPEC).rename({"Conv3d_1a_7x7.conv3d.weight": torch.zeros(1)})


def test_blocks_stand_behind_the_layers_that_are_named():
    tower = I3D(I3D.Config(inserts={"mixed_3c": "se", "mixed_4f": "non_local"}), spec=SPEC)
    order = list(tower.network.layers)
    assert order[order.index("mixed_4f") + 1] == "mixed_4f_non_local"
    assert isinstance(tower.network.layers["mixed_4f_non_local"], NonLocal)
    assert [name for name in order if name in PLACES] == list(PLACES)
    with pytest.raises(ConfigError, match="mixed_4g.*did you mean 'mixed_4"):
        I3D.Config(inserts={"mixed_4g": "se"})
    with pytest.raises(ConfigError, match="inserts.mixed_4f is 'sse'.*'se'"):
        I3D.Config(inserts={"mixed_4f": "sse"})
    with pytest.raises(ConfigError, match="'edges'"):
        parse(I3D.Config, {"padding": "edge"})


def test_any_number_of_frames_and_any_size_will_do():
    tower = I3D(I3D.Config(), spec=SPEC).eval()
    with torch.inference_mode():
        for frames, side in ((1, 32), (3, 33), (8, 64), (17, 20)):
            assert tower(torch.randn(1, frames, 3, side, side)).isfinite().all()


@pytest.mark.parametrize(("side", "step"), [(7, 2), (3, 1), (3, 2), (2, 2)])
@torch.inference_mode()
def test_same_is_zeros_all_around_with_the_odd_one_behind(side, step):
    kernel, stride = (side,) * 3, (step,) * 3
    conv = ConvNorm3d(2, 3, kernel=kernel, stride=stride, padding="same").eval()
    pool = MaxPool(kernel, stride, padding="same")
    for length in range(1, 10):
        maps = torch.rand(1, 2, length, length + 1, length + 2)
        amounts = []
        for axis in (4, 3, 2):  # the last axis first, as F.pad takes them
            total = max(0, (math.ceil(maps.shape[axis] / step) - 1) * step + side - maps.shape[axis])
            amounts += [total // 2, total - total // 2]
        padded = F.pad(maps, amounts)
        wanted = F.relu(conv.norm(F.conv3d(padded, conv.conv.weight, stride=stride)))
        torch.testing.assert_close(conv(maps), wanted, atol=1e-5, rtol=1e-5)
        if side < 7:
            assert torch.equal(pool(maps), F.max_pool3d(padded, kernel, stride))
