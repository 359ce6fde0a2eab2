"""AdamW in parameter groups, and the learning-rate schedule.

Groups are formed by two questions. Does weight decay pull at it (matrices: yes; biases, norms, the scale: no), and how
deep does it lie (with layer-wise decay, what lies near the input changes less).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from clipact.errors import ConfigError
from clipact.train.freezing import find_layers

_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW (arXiv 1711.05101) and what goes with it.

    lr             the highest learning rate
    text_lr        a factor on it for the text tower
    layer_decay    a factor for each layer further from a tower's output (arXiv 2106.08254); 1 treats all alike
    warmup_steps   the rate rises evenly from 0 over these, then falls along a cosine; anew where more begins to learn
    clip_norm      the gradient's norm is cut to this; None leaves it
    ema_decay      of the moving average of weights, with which the model is validated and saved; None keeps none
    wise_ft_alpha  how far what is validated and saved lies back towards the weights with which the last phase of the
                   run began (WiSE-FT, arXiv 2109.01903); 0 not at all
    """

    lr: float = 1e-3
    text_lr: float = 1.0
    layer_decay: float = 1.0
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int = 0
    clip_norm: float | None = None
    ema_decay: float | None = None
    wise_ft_alpha: float = 0.0

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.weight_decay < 0 or self.warmup_steps < 0:
            raise ConfigError(
                f"lr is {self.lr:g}, weight_decay {self.weight_decay:g}, warmup_steps {self.warmup_steps}; "
                "lr is above 0, the others are not below"
            )
        if self.text_lr < 0:
            raise ConfigError(f"text_lr is {self.text_lr:g}; it is a factor, not below 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas are {self.betas[0]:g} and {self.betas[1]:g}; they lie in 0..1, 1 left out")
        for name in ("layer_decay", "ema_decay"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ConfigError(f"{name} is {value:g}; it takes a number above 0, up to 1")
        if not 0 <= self.wise_ft_alpha < 1:
            raise ConfigError(f"wise_ft_alpha is {self.wise_ft_alpha:g}; it takes a number from 0, below 1")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ConfigError(f"clip_norm is {self.clip_norm:g}; it is above 0, or left out")


def make_optimizer(model: nn.Module, names: Sequence[str], config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the parameters of these names; a group keeps its highest rate as "peak_lr"."""
    parameters = dict(model.named_parameters())
    sides = sorted({name.partition(".")[0] for name in names if "." in name}) if config.layer_decay < 1 else []
    depths = {side: find_layers(model.get_submodule(side)).depths for side in sides}
    if flat := [side for side in sides if not depths[side]]:
        raise ConfigError(
            f"layer_decay is {config.layer_decay:g}, but the {' and the '.join(flat)} tower has no numbered "
            "layers to tell apart; leave it at 1, or set text_lr"
        )
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name in names:
        side, _, own = name.partition(".")
        tower = config.text_lr if side == "text" else 1.0
        peak = config.lr * tower * config.layer_decay ** depths.get(side, {}).get(own, 0)
        decay = config.weight_decay if parameters[name].ndim > 1 else 0.0
        groups.setdefault((peak, decay), []).append(parameters[name])
    return torch.optim.AdamW(
        [
            {"params": members, "lr": peak, "peak_lr": peak, "weight_decay": decay}
            for (peak, decay), members in groups.items()
        ],
        betas=config.betas,
        eps=_EPS,
        fused=True,
    )


# Not torch.optim.lr_scheduler: a LambdaLR of this function gives the same rates (difference 0), but counts steps in a
# state of its own, which a run would have to save and restore; what follows from the number of the step needs none.
def set_rate(optimizer: torch.optim.Optimizer, *, step: int, steps: int, config: OptimConfig) -> float:
    """The highest rate of any group in this step, 0..steps-1 of a phase, after setting each group's."""
    factor = rate_factor(step=step, steps=steps, config=config)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return max(float(group["lr"]) for group in optimizer.param_groups)


def rate_factor(*, step: int, steps: int, config: OptimConfig) -> float:
    """What the highest rate is multiplied with in this step: a line up, then half a cosine down to 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return (1 + math.cos(math.pi * done)) / 2
