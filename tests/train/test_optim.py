import copy
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from clipact.errors import ConfigError
from clipact.models.checkpoint import load_checkpoint
from clipact.train.averaging import EMA
from clipact.train.optim import OptimConfig, make_optimizer, rate_factor, set_rate
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_checkpoint(tiny_checkpoint(tmp_path_factory.mktemp("m") / "tiny"))


def _groups(encoder, config):
    """name -> (highest rate, decay)"""
    names = [name for name, _ in encoder.named_parameters()]
    optimizer = make_optimizer(encoder, names, config)
    facts = {id(p): (g["peak_lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    return {name: facts[id(p)] for name, p in encoder.named_parameters()}


def test_every_parameter_is_in_one_group_and_only_matrices_decay(encoder):
    groups = _groups(encoder, OptimConfig(weight_decay=0.3))
    for name, parameter in encoder.named_parameters():
        assert groups[name][1] == (0.3 if parameter.ndim > 1 else 0.0), name
    assert groups["log_scale"] == (1e-3, 0.0)


def test_layers_near_the_input_change_less(encoder):
    groups = _groups(encoder, OptimConfig(lr=1.0, layer_decay=0.5, text_lr=0.1))
    blocks = len(encoder.visual.image.blocks)
    assert groups["visual.image.head.project.weight"][0] == 1.0
    assert groups["visual.image.last.conv.weight"][0] == 1.0
    for i in range(blocks):
        rates = {rate for name, (rate, _) in groups.items() if name.startswith(f"visual.image.blocks.{i}.")}
        assert rates == {0.5 ** (blocks - i)}
    assert groups["visual.image.stem.conv.weight"][0] == 0.5 ** (blocks + 1)
    assert groups["text.words.weight"][0] == pytest.approx(0.1 * 0.5**2)
    assert groups["text.layers.0.qkv.weight"][0] == pytest.approx(0.1 * 0.5)
    assert groups["text.head.blocks.0.fc1.weight"][0] == pytest.approx(0.1), "the head's own blocks are no layers"


class Tower(nn.Module):
    """The parameters of a tower under the names of real ones, and nothing that computes."""

    def __init__(self, build):
        super().__init__()
        build(self)


def _vit(tower):
    tower.proj = nn.Parameter(torch.zeros(2, 2))
    tower.patch_embed = nn.ModuleDict({"proj": nn.Linear(2, 2)})
    tower.blocks = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))


def _resnet(tower):
    tower.conv1 = nn.Linear(2, 2)
    tower.layer1 = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    tower.layer2 = nn.Sequential(nn.Linear(2, 2))
    tower.fc = nn.Linear(2, 2)


def test_patches_are_the_deepest_and_a_resnets_stages_one_stack(encoder):
    other = copy.copy(encoder)
    other._modules = {"visual": Tower(_vit), "text": Tower(_resnet)}
    rates = {name: rate for name, (rate, _) in _groups(other, OptimConfig(lr=1.0, layer_decay=0.5)).items()}
    assert rates["visual.patch_embed.proj.weight"] == 0.5**4
    assert rates["visual.proj"] == 1.0
    assert [rates[f"visual.blocks.{i}.weight"] for i in range(3)] == [0.5**3, 0.5**2, 0.5]
    assert rates["text.conv1.weight"] == 0.5**5
    assert rates["text.layer1.0.weight"] == 0.5**4
    assert rates["text.layer2.0.weight"] == 0.5
    assert rates["text.fc.weight"] == 1.0


def test_a_tower_without_layers_has_no_layer_decay(encoder):
    other = copy.copy(encoder)
    other._modules = {"visual": Tower(lambda tower: setattr(tower, "conv", nn.Linear(2, 2))), "text": encoder.text}
    with pytest.raises(ConfigError, match="the visual tower has no numbered layers"):
        _groups(other, OptimConfig(layer_decay=0.5))


@given(st.integers(1, 200), st.integers(0, 50))
def test_the_rate_rises_then_falls(steps, warmup):
    config = OptimConfig(warmup_steps=warmup)
    factors = [rate_factor(step=step, steps=steps, config=config) for step in range(max(steps, warmup))]
    assert all(a < b for a, b in pairwise(factors[:warmup]))
    assert all(a >= b for a, b in pairwise(factors[warmup:]))
    assert all(0 <= factor <= 1 for factor in factors)
    if warmup < steps:
        assert factors[warmup] == pytest.approx(1)


def test_the_rate_of_a_step_is_set_in_every_group(encoder):
    config = OptimConfig(lr=1.0, text_lr=0.5, warmup_steps=4)
    optimizer = make_optimizer(encoder, ["log_scale", "text.head.norm.bias"], config)
    assert set_rate(optimizer, step=1, steps=10, config=config) == 0.5
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"lr": 0.0}, "lr is 0"),
        ({"layer_decay": 1.5}, "layer_decay is 1.5"),
        ({"ema_decay": 0.0}, "ema_decay is 0"),
        ({"wise_ft_alpha": 1.0}, "wise_ft_alpha is 1"),
        ({"clip_norm": -1.0}, "clip_norm is -1"),
        ({"text_lr": -1.0}, "text_lr is -1"),
        ({"betas": (1.0, 0.9)}, "betas are 1"),
    ],
)
def test_impossible_settings_are_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        OptimConfig(**wrong)


def test_the_mean_of_weights_follows_its_recursion_and_gives_the_weights_back(encoder):
    name = "visual.image.head.project.bias"
    weight = dict(encoder.named_parameters())[name]
    average = EMA(encoder, [name], decay=0.5)
    before = weight.detach().clone()
    expected = before.double()
    with torch.no_grad():
        for step in range(20):
            weight.add_(1.0)
            average.update(step=step)
            decay = min(0.5, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * weight.double()
    torch.testing.assert_close(average.tensors[name].double(), expected)
    live = weight.detach().clone()
    with average.applied():
        assert torch.equal(weight, average.tensors[name]) is False
        torch.testing.assert_close(weight.double(), expected, check_dtype=False)
    assert torch.equal(weight, live)
    assert math.isclose(float((live - before).mean()), 20.0, rel_tol=1e-5)
