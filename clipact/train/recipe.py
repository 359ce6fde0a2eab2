"""A recipe of contrastive training: everything that decides a run but the data themselves, in one TOML file.

Each table is the configuration of one room, and stands beside what it configures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from clipact import aliases
from clipact.config import load_toml, override, parse
from clipact.errors import ConfigError
from clipact.models.checkpoint import Precision
from clipact.train.distillation import DistillationConfig
from clipact.train.encoded_batches import DataConfig
from clipact.train.freezing import TowerConfig
from clipact.train.initialization import InitConfig
from clipact.train.optim import OptimConfig
from clipact.train.validation import ValidationConfig


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The steps of a run.

    batch            entries a batch; it has a row for each clip of an entry with each sentence that is said of it
    chunk            frames that are encoded at once: what memory for graphs hangs on
    accumulate       batches whose gradients are averaged in one step
    steps, epochs    how long; one of the two
    precision        inside the networks, those that stay as they are too; weights are always kept in 32 bits
    save_minutes     between two checkpoints
    save_as          precision of the weights of the finished model
    """

    batch: int = 256
    chunk: int = 64
    accumulate: int = 1
    steps: int | None = None
    epochs: float | None = None
    precision: Precision = "fp32"
    save_minutes: float = 10.0
    save_as: Literal["fp32", "fp16"] = "fp32"

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ConfigError("train takes either steps or epochs")
        if (self.steps or self.epochs or 0) <= 0:
            raise ConfigError(f"steps is {self.steps} and epochs {self.epochs}; the one that is given is above 0")
        for name in ("batch", "chunk", "accumulate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it is at least 1")
        if self.save_minutes < 0:
            raise ConfigError(f"save_minutes is {self.save_minutes:g}; it is not below 0")

    def count_steps(self, entries: int) -> int:
        """How many steps there are, over so many entries an epoch; at least 1."""
        return self.steps or max(1, round((self.epochs or 0) * entries / (self.batch * self.accumulate)))


@dataclass(frozen=True, kw_only=True)
class BaseRecipe:
    """What every recipe says.

    name          of the model that comes out
    trained_on    what that model says of its data, so that no score on them passes for zero-shot
    """

    name: str
    seed: int = 0
    license: str = ""
    trained_on: tuple[str, ...]
    train: Schedule
    optim: OptimConfig = field(default_factory=OptimConfig)


AnyRecipe = TypeVar("AnyRecipe", bound=BaseRecipe)


def load_recipe(path: str | Path, kind: type[AnyRecipe], *, changes: Sequence[str] = ()) -> AnyRecipe:
    """The recipe in a TOML file after each `a.b=value` of `changes`; ConfigError names a key that is none."""
    table = aliases.rename(load_toml(path), "recipe")
    for change in changes:
        table = aliases.rename(override(table, change), "recipe", overwrite=True)
    return parse(kind, table)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Schedule):
    """The steps of a run that learns from clips and sentences.

    loss             a name in `clipact.losses.LOSSES`: every text of a batch is a negative of every clip; or
                     "cross_entropy": the texts of all labels are, whether a batch has them or not
    loss_tile        batches of more rows have their loss in tiles of this side, without a batch x batch matrix
    memory_gb        for graphs that are kept, so that their chunks are encoded once only; 0 keeps none
    """

    loss: Literal["info_nce", "sigmoid", "cross_entropy"] = "info_nce"
    label_smoothing: float = 0.0
    loss_tile: int = 4096
    graph_memory_gb: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss_tile < 1:
            raise ConfigError(f"loss_tile is {self.loss_tile}; it is at least 1")
        if not 0 <= self.label_smoothing < 1 or self.graph_memory_gb < 0:
            raise ConfigError(
                f"label_smoothing is {self.label_smoothing:g}, graph_memory_gb {self.graph_memory_gb:g}; "
                "none is below 0, and label_smoothing is below 1"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe(BaseRecipe):
    """A whole run; `visual` and `text` say how far each tower learns."""

    init: InitConfig
    data: DataConfig
    train: TrainConfig
    visual: TowerConfig = field(default_factory=TowerConfig)
    text: TowerConfig = field(default_factory=TowerConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)

    def __post_init__(self) -> None:
        if self.distillation.teachers and self.train.loss == "cross_entropy":
            raise ConfigError(
                "distillation.teachers and train.loss = 'cross_entropy' are given together; teachers tell which sentences of a "
                "batch a clip is like, for 'info_nce' and 'sigmoid'"
            )
        if self.distillation.teachers and self.train.batch > self.train.loss_tile:
            raise ConfigError(
                f"train.batch is {self.train.batch:,}, loss_tile {self.train.loss_tile:,}: with distillation.teachers the "
                "batch x batch matrix is formed; take a smaller batch, or a larger loss_tile"
            )
        if self.train.loss == "sigmoid" and self.init.model is None and self.init.bias is None:
            raise ConfigError("train.loss is 'sigmoid', which learns a bias; give init.bias, such as -10")
        if self.data.cached_augmentations > 1 and self.visual.trainable == "all":
            raise ConfigError(
                f"data.cached_augmentations is {self.data.cached_augmentations}, but views are kept of a frozen tower alone; "
                "set visual.trainable to 'head' or 'nothing'"
            )
