"""Freezing: which parameters are trained from which step on (locked-image tuning, arXiv 2111.07991).

A tower has two parts: its backbone, whose features can be cached while it is frozen, and its head, which is trained on
them. What is frozen is also in evaluation mode: no dropout, and batch norm leaves its statistics alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from clipact.errors import ConfigError
from clipact.models.dual_encoder import DualEncoder
from clipact.models.towers.backbone_head import split_backbone_head


@dataclass(frozen=True, kw_only=True)
class Layers:
    """The numbered layers of a tower.

    count   how many there are; 0 for a tower that has none to tell apart
    depths  how many layers each parameter lies below the head: 0 above the last layer, 1 in it, count + 1 in the stem
    """

    count: int = 0
    depths: dict[str, int] = field(default_factory=dict)


def find_layers(tower: nn.Module) -> Layers:
    """The longest stack of numbered layers, with the stacks that stand beside it; a head's own blocks are no layers."""
    heads = {module for head in split_backbone_head(tower).modules for module in head.modules()}
    modules = [(name, module) for name, module in tower.named_modules() if module not in heads]
    stacks = [(n, m) for n, m in modules if isinstance(m, (nn.ModuleList, nn.Sequential))]
    # A stage's blocks lie inside a stack of stages: the outer one counts, and is numbered.
    outer = [(n, m) for n, m in stacks if not any(n.startswith(f"{other}.") for other, _ in stacks)]
    numbered = [(n, m) for n, m in outer if len(m) and all(child.isdecimal() for child, _ in m.named_children())]
    if not numbered:
        return Layers()
    longest = max(numbered, key=lambda named: len(named[1]))[0]
    # A ResNet's stages stand side by side (layer1, layer2, ...): together they are the stack.
    beside = [(n, m) for n, m in numbered if n.rpartition(".")[0] == longest.rpartition(".")[0]]
    layers = [f"{n}.{child}." for n, m in beside for child, _ in m.named_children()]
    depths: dict[str, int] = {}
    met = False
    for name, _ in tower.named_parameters():
        place = next((i for i, layer in enumerate(layers) if name.startswith(layer)), None)
        met = met or place is not None
        if place is not None:
            depths[name] = len(layers) - place
        else:
            # CLIP declares its projection, a bare parameter, before the layers that it follows.
            depths[name] = 0 if met or "proj" in name.rpartition(".")[2] else len(layers) + 1
    return Layers(count=len(layers), depths=depths)


Trainable = Literal["all", "head", "nothing"]


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """How much of a tower is trained.

    trainable      "all" of it, its "head" alone, or "nothing"
    unfreeze_step  the step, counted from 0, from which all of it is trained; None for never. The learning rate
                   rises and falls anew from there on (warm restarts, arXiv 1608.03983)
    batch_norm     "update": statistics take each chunk in once a step, where the tower is trained; "frozen": never
    frozen_layers  where all of it is trained, so many layers from the input on, and what lies below them, stay frozen:
                   they take the time of inference, and nothing of them is kept for a gradient
    """

    trainable: Trainable = "all"
    unfreeze_step: int | None = None
    batch_norm: Literal["update", "frozen"] = "update"
    frozen_layers: int = 0

    def __post_init__(self) -> None:
        if self.frozen_layers < 0:
            raise ConfigError(f"frozen_layers is {self.frozen_layers}; it is a number of layers, or 0")
        if self.frozen_layers and self.trainable != "all" and self.unfreeze_step is None:
            raise ConfigError(
                f"frozen_layers is {self.frozen_layers} where trainable is {self.trainable!r} for good; it is for a "
                "tower that is trained whole, at once or from unfreeze_step on"
            )
        if self.unfreeze_step is not None and self.unfreeze_step < 0:
            raise ConfigError(f"unfreeze_step is {self.unfreeze_step}; steps are counted from 0")

    def at(self, step: int) -> Trainable:
        """Return what is trained in this step."""
        return "all" if self.unfreeze_step is not None and step >= self.unfreeze_step else self.trainable


@dataclass(frozen=True, kw_only=True)
class Freezing:
    """Trained and frozen parameters of a model; the scale and the bias are always trained."""

    visual: TowerConfig
    text: TowerConfig

    def names(self, encoder: DualEncoder, *, step: int) -> tuple[str, ...]:
        """Return the parameters that are trained in this step; ConfigError when a tower has no head."""
        return tuple(self._names(encoder, {"visual": self.visual.at(step), "text": self.text.at(step)}))

    def names_ever(self, encoder: DualEncoder) -> tuple[str, ...]:
        """Return the parameters that are trained in some step."""
        return self.names(encoder, step=max(self.phase_starts))

    @property
    def phase_starts(self) -> tuple[int, ...]:
        """First steps of the phases, in which the same parameters are trained; 0 is the first."""
        later = {config.unfreeze_step or 0 for config in (self.visual, self.text)}
        return tuple(sorted({0, *later}))

    def phase_start(self, step: int) -> int:
        """Return the first step of the phase that this step is in."""
        return max(start for start in self.phase_starts if start <= step)

    def apply(self, encoder: DualEncoder, *, step: int) -> None:
        """Set which parameters take a gradient and which modules are in training mode in this step."""
        learning = set(self.names(encoder, step=step))
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(name in learning)
        for tower, config in ((encoder.visual, self.visual), (encoder.text, self.text)):
            trainable = config.at(step)
            tower.train(trainable == "all")
            for module in split_backbone_head(tower).modules if trainable == "head" else ():
                module.train()
            for module in tower.modules():
                own = list(module.parameters())
                still = trainable == "all" and own and not any(parameter.requires_grad for parameter in own)
                if still or (config.batch_norm == "frozen" and isinstance(module, _NormBase)):
                    module.eval()

    def _names(self, encoder: DualEncoder, trainable: dict[str, Trainable]) -> Iterator[str]:
        sides = (("visual", encoder.visual, self.visual), ("text", encoder.text, self.text))
        for side, tower, config in sides:
            parts, frozen = split_backbone_head(tower), _below(side, tower, config.frozen_layers)
            chosen = [
                f"{side}.{name}"
                for name, parameter in tower.named_parameters()
                if (trainable[side] == "all" and name not in frozen)
                or (trainable[side] == "head" and parts.owns(parameter))
            ]
            if trainable[side] == "head" and not chosen:
                raise ConfigError(
                    f"trainable is 'head' for the {side} tower, a {type(tower).__name__}, which has none; "
                    "take 'all' or 'nothing'"
                )
            yield from chosen
        yield from (name for name, _ in encoder.named_parameters(recurse=False))


def _below(side: str, tower: nn.Module, frozen_layers: int) -> set[str]:
    """The parameters of so many layers from the input on, and of what lies below them."""
    if not frozen_layers:
        return set()
    layers = find_layers(tower)
    if frozen_layers > layers.count:
        raise ConfigError(
            f"{side}.frozen_layers is {frozen_layers}; the {side} tower, a {type(tower).__name__}, has {layers.count} "
            "numbered layers"
        )
    return {name for name, depth in layers.depths.items() if depth > layers.count - frozen_layers}
