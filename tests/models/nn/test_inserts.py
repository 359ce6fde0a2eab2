"""SE and CBAM against timm's modules with the same weights; what each gate shares."""

import pytest
import torch
from einops import rearrange
from timm.layers.cbam import CbamModule
from timm.layers.squeeze_excite import SEModule

from clipact.models.nn.inserts import CBAM, INSERTS, PositionGate, SpaceTimeGate, SqueezeExcite

CHANNELS = 32


def _fill(ours, names):
    """Ours with timm's weights, by name; 1 x 1 convolutions become linear layers."""
    with torch.no_grad():
        for name, value in names.items():
            ours.get_parameter(name).copy_(value.reshape(ours.get_parameter(name).shape))
    return ours.eval()


def test_squeeze_and_excitation_equals_timm():
    torch.manual_seed(0)
    theirs = SEModule(CHANNELS, rd_channels=2).eval()
    sides = {"shrink": theirs.fc1, "grow": theirs.fc2}
    weights = {f"{side}.{kind}": getattr(layer, kind) for side, layer in sides.items() for kind in ("weight", "bias")}
    ours = _fill(SqueezeExcite(CHANNELS), weights)
    pictures = torch.randn(3, CHANNELS, 9, 7)
    torch.testing.assert_close(ours(pictures[:, :, None])[:, :, 0], theirs(pictures), atol=1e-6, rtol=1e-6)
    # A clip is pooled over its steps too: as one tall picture.
    clips = torch.randn(3, CHANNELS, 4, 9, 7)
    tall = theirs(rearrange(clips, "b c t h w -> b c (t h) w"))
    torch.testing.assert_close(rearrange(ours(clips), "b c t h w -> b c (t h) w"), tall, atol=1e-6, rtol=1e-6)


def test_cbam_equals_timm():
    torch.manual_seed(0)
    theirs = CbamModule(CHANNELS, rd_channels=2).eval()
    norm = theirs.spatial.conv.bn
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2), norm.bias.normal_()
        norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    ours = CBAM(CHANNELS)
    ours.place.norm.load_state_dict(norm.state_dict())
    weights = {"channel.shrink.weight": theirs.channel.fc1.weight, "channel.grow.weight": theirs.channel.fc2.weight}
    _fill(ours, {**weights, "place.look.weight": theirs.spatial.conv.conv.weight})
    pictures = torch.randn(3, CHANNELS, 9, 8)
    torch.testing.assert_close(ours(pictures[:, :, None])[:, :, 0], theirs(pictures), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("part", "shared"), [("space", (1, 2)), ("time", (1, 3, 4)), ("channel", (2, 3, 4))], ids=lambda x: str(x)
)
def test_a_gate_of_space_time_is_shared_along_the_axes_that_it_pools(part, shared):
    torch.manual_seed(0)
    x = torch.rand(2, CHANNELS, 4, 5, 6) + 0.5
    gate = getattr(SpaceTimeGate(CHANNELS, reduction=4), part)(x) / x
    assert torch.allclose(gate, gate.mean(shared, keepdim=True).expand_as(gate), atol=1e-6)
    assert 0 < gate.min() < gate.max() < 1


def test_a_place_gate_equals_its_formula_in_plain_loops():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 2, 5, 4)
    gate = PositionGate(over=(1,), kernel=(1, 3, 3), norm=False)
    pooled = torch.stack([x.mean(1), x.amax(1)], dim=1)
    wanted = torch.empty_like(x)
    for t in range(2):
        for i in range(5):
            for j in range(4):
                seen = gate.look.bias[0].clone()
                for di in range(-1, 2):
                    for dj in range(-1, 2):
                        if 0 <= i + di < 5 and 0 <= j + dj < 4:
                            seen = (
                                seen
                                + (gate.look.weight[0, :, 0, di + 1, dj + 1] * pooled[0, :, t, i + di, j + dj]).sum()
                            )
                wanted[0, :, t, i, j] = x[0, :, t, i, j] * torch.sigmoid(seen)
    torch.testing.assert_close(gate(x), wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", INSERTS)
def test_an_insert_keeps_the_shape_and_takes_a_single_place(kind):
    torch.manual_seed(0)
    block = INSERTS[kind](4)
    for shape in ((2, 4, 3, 5, 6), (2, 4, 1, 1, 1)):
        assert block(torch.randn(shape)).shape == shape
