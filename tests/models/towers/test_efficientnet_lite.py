"""Against timm's port of the same networks, with random weights mapped over in order of execution."""

import pytest
import torch

from clipact.errors import ConfigError
from clipact.models.towers.efficientnet_lite import EfficientNetLite, InvertedResidual
from clipact.models.towers.tower import Head

HEAD = Head.Config(dim=32, hidden=16)


def random_tower(variant: str) -> EfficientNetLite:
    torch.manual_seed(0)
    tower = EfficientNetLite(EfficientNetLite.Config(variant=variant, head=HEAD))
    for name, buffer in tower.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    for module in tower.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
    return tower.eval()


def timm_twin(tower: EfficientNetLite) -> torch.nn.Module:
    timm = pytest.importorskip("timm")
    twin = timm.create_model(f"tf_efficientnet_{tower.config.variant}", pretrained=False, num_classes=0)
    ours = [value for name, value in tower.state_dict().items() if not name.startswith("head.")]
    twin.load_state_dict(dict(zip(twin.state_dict(), ours, strict=True)))
    return twin.eval()


@pytest.mark.parametrize("variant", ["lite0", "lite1", "lite2"])
def test_equals_timm(variant):
    tower = random_tower(variant)
    twin = timm_twin(tower)
    for height, width in (tower.spec.size, (97, 64)):  # odd sizes pad differently
        images = torch.randn(2, 3, height, width)
        with torch.inference_mode():
            ours, theirs = tower.features(images), twin(images)
        assert theirs.std() > 0.01
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_equals_timm_in_training():
    tower = random_tower("lite0")
    twin = timm_twin(tower).train()
    tower.train()
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(tower.features(images), twin(images), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(tower.last.norm.running_var, twin.bn2.running_var, atol=1e-5, rtol=1e-4)


def test_learns_as_timm_does_with_frozen_norms():
    tower = random_tower("lite0").double()
    twin = timm_twin(tower).double()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for network in (tower.train(), twin.train()):
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        (tower.features(images) if network is tower else twin(images)).square().sum().backward()
    ours = [parameter.grad for name, parameter in tower.named_parameters() if not name.startswith("head.")]
    for mine, theirs in zip(ours, [parameter.grad for parameter in twin.parameters()], strict=True):
        torch.testing.assert_close(mine, theirs)


def test_pictures_do_not_depend_on_their_neighbours_or_on_memory_format():
    tower = random_tower("lite0")
    images = torch.randn(3, 3, 96, 96)
    with torch.inference_mode():
        batch = tower(images)
        torch.testing.assert_close(tower(images.to(memory_format=torch.channels_last)), batch)
        singles = torch.cat([tower(images[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(singles, batch, atol=1e-5, rtol=1e-5)


def test_evaluating_leaves_the_picture_as_it_was():
    tower = random_tower("lite0")
    images = torch.randn(1, 3, 64, 64)
    before = images.clone()
    with torch.inference_mode():
        first = tower(images)
        assert torch.equal(tower(images), first)
    assert torch.equal(images, before)


@pytest.mark.parametrize("training", [True, False])
def test_every_parameter_gets_a_gradient(training):
    tower = random_tower("lite0").train(training)
    tower(torch.randn(2, 3, 64, 64)).square().sum().backward()
    silent = [name for name, p in tower.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_pictures_are_scaled_as_the_weights_expect():
    spec = random_tower("lite2").spec
    assert spec.size == (260, 260)
    pixel = torch.tensor([0.0, 127.0, 255.0])
    scaled = (pixel / 255 - spec.mean[0]) / spec.std[0]
    torch.testing.assert_close(scaled, (pixel - 127) / 128)


def test_stochastic_depth_leaves_whole_blocks_out_by_picture():
    torch.manual_seed(0)
    block = InvertedResidual(4, 4, expansion=1, kernel=3, stride=1).eval()
    x = torch.randn(400, 4, 5, 5)
    with torch.no_grad():
        added = block(x) - x
        block.left_out, block.training = 0.25, True  # its norms stay as they are
        found = block(x) - x
    left_out = found.flatten(1).abs().amax(1) == 0
    assert 0.15 < left_out.float().mean() < 0.35
    torch.testing.assert_close(found[~left_out], added[~left_out] / 0.75)


def test_stochastic_depth_grows_from_block_to_block_and_has_no_part_in_answers():
    plain = random_tower("lite0")
    config = EfficientNetLite.Config(variant="lite0", stochastic_depth=0.32, head=HEAD)
    other = EfficientNetLite(config).eval()
    other.load_state_dict(plain.state_dict())
    chances = [block.left_out for block in other.blocks]
    assert chances == pytest.approx([0.02 * i for i in range(1, 17)])
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(other(images), plain(images))
        for module in other.train().modules():
            module.train(not isinstance(module, torch.nn.BatchNorm2d))
        assert not torch.allclose(other(images), plain(images))
    with pytest.raises(ConfigError, match="stochastic_depth is 1"):
        EfficientNetLite.Config(stochastic_depth=1.0)
