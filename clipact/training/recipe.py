"""A recipe: everything that decides a run but the data themselves, in one TOML file.

Each table is the configuration of one room, and stands beside what it configures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clipact.config import load_toml, override, parse
from clipact.errors import ConfigError
from clipact.training.feed import DataConfig
from clipact.training.judge import JudgeConfig
from clipact.training.learning import TowerConfig
from clipact.training.optim import OptimConfig
from clipact.training.start import Start


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The steps of a run.

    batch            entries a batch: every text is a negative of every clip
    chunk            frames that are encoded at once: what memory for graphs hangs on
    accumulate       batches whose gradients are averaged in one step
    steps, epochs    how long; one of the two
    loss             a name in `clipact.losses.LOSSES`
    loss_tile        batches of more rows have their loss in tiles of this side, without a batch x batch matrix
    precision        inside the towers; weights are always kept in 32 bits
    memory_gb        for graphs that are kept, so that their chunks are encoded once only; 0 keeps none
    save_minutes     between two checkpoints
    save_as          precision of the weights of the finished model
    """

    batch: int = 256
    chunk: int = 64
    accumulate: int = 1
    steps: int | None = None
    epochs: float | None = None
    loss: Literal["info_nce", "sigmoid"] = "info_nce"
    label_smoothing: float = 0.0
    loss_tile: int = 4096
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    memory_gb: float = 0.0
    save_minutes: float = 10.0
    save_as: Literal["fp32", "fp16"] = "fp32"

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ConfigError("train takes either steps or epochs")
        if (self.steps or self.epochs or 0) <= 0:
            raise ConfigError(f"steps is {self.steps} and epochs {self.epochs}; the one that is given is above 0")
        for name in ("batch", "chunk", "accumulate", "loss_tile"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it is at least 1")
        if not 0 <= self.label_smoothing < 1 or self.memory_gb < 0 or self.save_minutes < 0:
            raise ConfigError(
                f"label_smoothing is {self.label_smoothing:g}, memory_gb {self.memory_gb:g}, "
                f"save_minutes {self.save_minutes:g}; none is below 0, and label_smoothing is below 1"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run.

    name          of the model that comes out
    trained_on    what that model says of its data, so that no score on them passes for zero-shot
    visual, text  how far each tower learns
    """

    name: str
    seed: int = 0
    license: str = ""
    trained_on: tuple[str, ...]
    start: Start
    data: DataConfig
    train: TrainConfig
    visual: TowerConfig = field(default_factory=TowerConfig)
    text: TowerConfig = field(default_factory=TowerConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)

    def __post_init__(self) -> None:
        if self.train.loss == "sigmoid" and self.start.model is None and self.start.bias is None:
            raise ConfigError("train.loss is 'sigmoid', which learns a bias; give start.bias, such as -10")
        if self.data.views > 1 and self.visual.learns == "all":
            raise ConfigError(
                f"data.views is {self.data.views}, but views are kept of a frozen tower alone; "
                "set visual.learns to 'head' or 'nothing'"
            )


def load_recipe(path: str | Path, *, changes: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file after each `a.b=value` of `changes`; ConfigError names a key that is none."""
    table = load_toml(path)
    for change in changes:
        table = override(table, change)
    return parse(Recipe, table)
