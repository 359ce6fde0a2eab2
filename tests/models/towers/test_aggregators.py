import pytest
import torch

from clipact.errors import ConfigError
from clipact.models.nn.temporal_shift import temporal_shift
from clipact.models.towers.frame_aggregator import AGGREGATORS, FrameAggregator
from tests.tiny import SPEC
from tests.train.small_run import SmallImage

BEGIN_AT_MEAN = sorted(set(AGGREGATORS) - {"max"})


def _aggregator(name, *, frames=4, width=8):
    kind = AGGREGATORS[name]
    torch.manual_seed(0)
    return kind(width, frames=frames, config=kind.Config())


@pytest.mark.parametrize("name", BEGIN_AT_MEAN)
@pytest.mark.parametrize("frames", [1, 4, 7])
def test_an_aggregator_begins_exactly_at_the_mean(name, frames):
    x = torch.randn(3, frames, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(_aggregator(name)(x), x.mean(1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", sorted(set(AGGREGATORS) - {"mean", "max"}))
def test_an_aggregator_learns_from_the_first_step(name):
    x = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(1))
    aggregator = _aggregator(name)
    aggregator(x).pow(2).sum().backward()
    gradients = [p.grad.abs().sum() for p in aggregator.parameters() if p.grad is not None]
    assert sum(gradients) > 0


@pytest.mark.parametrize("name", [name for name, kind in AGGREGATORS.items() if not kind.order_free])
def test_the_first_step_learns_from_the_order_of_frames(name):
    x = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(1))
    aggregator = _aggregator(name)

    def learnt(frames):
        gradients = torch.autograd.grad(aggregator(frames).pow(2).sum(), aggregator.add.weight)[0]
        return gradients / gradients.norm()

    assert (learnt(x) - learnt(x.flip(1))).norm() > 0.1


def test_settings_reach_the_aggregator_and_unknown_ones_are_named():
    image = SmallImage(SmallImage.Config())
    tower = FrameAggregator(image, FrameAggregator.Config(aggregator="transformer", settings={"layers": 3}), spec=SPEC)
    assert len(tower.aggregator.blocks) == 3
    with pytest.raises(ConfigError, match=r"transformer\.settings\.layer.*layers"):
        FrameAggregator(image, FrameAggregator.Config(aggregator="transformer", settings={"layer": 3}), spec=SPEC)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_shift_takes_channels_from_the_neighbours(axis):
    frames, share = 3, 0.25
    x = torch.randn(2 * frames, 8, 8, generator=torch.Generator().manual_seed(0))
    shifted = temporal_shift(x, frames=frames, share=share, axis=axis)
    for row in range(len(x)):
        clip, t = divmod(row, frames)
        for channel in range(8):
            source = t - 1 if channel < 2 else t + 1 if channel < 4 else t
            expected = torch.zeros(8)
            if 0 <= source < frames:
                expected = x[clip * frames + source].select(axis - 1, channel)
            assert torch.equal(shifted[row].select(axis - 1, channel), expected)


def test_a_shift_needs_an_image_tower_with_branches():
    with pytest.raises(ConfigError, match="no branches"):
        FrameAggregator(SmallImage(SmallImage.Config()), FrameAggregator.Config(shift=0.125), spec=SPEC)
