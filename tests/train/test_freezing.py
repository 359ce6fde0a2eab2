import pytest
import torch

from clipact.errors import ConfigError
from clipact.models.checkpoint import load_checkpoint
from clipact.models.dual_encoder import DualEncoder
from clipact.models.towers.backbone_head import split_backbone_head
from clipact.train.freezing import Freezing, TowerConfig
from tests.tiny import TinyText, TinyVisual, tiny_checkpoint


def _learning(visual="all", text="all", **options):
    return Freezing(visual=TowerConfig(trainable=visual, **options), text=TowerConfig(trainable=text))


def test_a_tower_in_two_is_the_tower(small):
    encoder = load_checkpoint(small)
    video, ids = torch.randn(3, 4, 3, 16, 16), encoder.text.tokenize(["a is", "b"])
    for tower, inputs in ((encoder.visual, video), (encoder.text, ids), (TinyVisual(), video)):
        parts = split_backbone_head(tower)
        torch.testing.assert_close(parts.head(parts.body(inputs)), tower(inputs))


def test_what_learns_is_what_takes_a_gradient_and_is_in_training_mode(small):
    encoder = load_checkpoint(small)
    learning = _learning("head", "nothing")
    learning.apply(encoder, step=0)
    taking = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert taking == set(learning.names(encoder, step=0))
    assert taking == {n for n, _ in encoder.named_parameters() if n.startswith("visual.image.head.")} | {
        "log_scale",
        "bias",
    }
    assert encoder.visual.image.head.dropout.training
    assert not encoder.visual.image.norm.training
    assert not any(module.training for module in encoder.text.modules())
    _learning().apply(encoder, step=0)
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert encoder.visual.image.norm.training
    _learning(batch_norm="frozen").apply(encoder, step=0)
    assert encoder.visual.image.head.dropout.training
    assert not encoder.visual.image.norm.training


def test_a_locked_tower_is_unlocked_from_its_step_on(small):
    encoder = load_checkpoint(small)
    learning = _learning("nothing", unfreeze_step=5)
    assert learning.phase_starts == (0, 5)
    assert [learning.phase_start(step) for step in (0, 4, 5, 9)] == [0, 0, 5, 5]
    before, after = (set(learning.names(encoder, step=step)) for step in (4, 5))
    assert not any(name.startswith("visual.") for name in before)
    assert after == {name for name, _ in encoder.named_parameters()} == set(learning.names_ever(encoder))


def test_the_lowest_layers_may_stay_as_they_are(tmp_path):
    encoder = load_checkpoint(tiny_checkpoint(tmp_path / "tiny"))
    image, text = encoder.visual.image, encoder.text
    config = Freezing(visual=TowerConfig(frozen_layers=2), text=TowerConfig(frozen_layers=len(text.layers)))
    config.apply(encoder, step=0)
    still = [image.stem, *image.blocks[:2], text.words, text.positions, text.norm, *text.layers]
    moving = [*image.blocks[2:], image.last, image.head, text.head]
    for modules, trainable in ((still, False), (moving, True)):
        for module in modules:
            assert all(parameter.requires_grad is trainable for parameter in module.parameters())
            assert module.training is trainable
    assert not image.blocks[1].depthwise.norm.training
    images, before = torch.randn(2, 3, 32, 32), image.stem.norm.running_mean.clone()
    image(images).square().sum().backward()
    assert image.blocks[2].project.conv.weight.grad is not None
    assert image.blocks[1].project.conv.weight.grad is None
    assert torch.equal(image.stem.norm.running_mean, before)


def test_layers_that_are_not_there_cannot_be_frozen(tmp_path, small):
    encoder = load_checkpoint(tiny_checkpoint(tmp_path / "tiny"))
    with pytest.raises(ConfigError, match=r"text.frozen_layers is 9; the text tower, a BertText, has \d+ numbered"):
        Freezing(visual=TowerConfig(), text=TowerConfig(frozen_layers=9)).names(encoder, step=0)
    with pytest.raises(ConfigError, match="visual.frozen_layers is 1.*has 0"):
        _learning(frozen_layers=1).names(load_checkpoint(small), step=0)
    with pytest.raises(ConfigError, match="where trainable is 'head' for good"):
        TowerConfig(trainable="head", frozen_layers=1)
    assert TowerConfig(trainable="head", frozen_layers=1, unfreeze_step=3).at(3) == "all"


def test_a_tower_without_a_head_says_so():
    with pytest.raises(ConfigError, match="trainable is 'head' for the visual tower, a TinyVisual, which has none"):
        _learning("head").names(DualEncoder(TinyVisual(), TinyText()), step=0)
