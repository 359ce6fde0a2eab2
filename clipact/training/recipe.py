"""A recipe of contrastive training: everything that decides a run but the data themselves, in one TOML file.

Each table is the configuration of one room, and stands beside what it configures.
"""

from dataclasses import dataclass, field
from typing import Literal

from clipact.errors import ConfigError
from clipact.training.feed import DataConfig
from clipact.training.judge import JudgeConfig
from clipact.training.learning import TowerConfig
from clipact.training.outline import Outline, Pace
from clipact.training.start import Start
from clipact.training.teachers import TeachConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Pace):
    """The steps of a run that learns from clips and sentences.

    loss             a name in `clipact.losses.LOSSES`: every text of a batch is a negative of every clip; or
                     "cross_entropy": the texts of all labels are, whether a batch has them or not
    loss_tile        batches of more rows have their loss in tiles of this side, without a batch x batch matrix
    memory_gb        for graphs that are kept, so that their chunks are encoded once only; 0 keeps none
    """

    loss: Literal["info_nce", "sigmoid", "cross_entropy"] = "info_nce"
    label_smoothing: float = 0.0
    loss_tile: int = 4096
    memory_gb: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss_tile < 1:
            raise ConfigError(f"loss_tile is {self.loss_tile}; it is at least 1")
        if not 0 <= self.label_smoothing < 1 or self.memory_gb < 0:
            raise ConfigError(
                f"label_smoothing is {self.label_smoothing:g}, memory_gb {self.memory_gb:g}; "
                "none is below 0, and label_smoothing is below 1"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe(Outline):
    """A whole run; `visual` and `text` say how far each tower learns."""

    start: Start
    data: DataConfig
    train: TrainConfig
    visual: TowerConfig = field(default_factory=TowerConfig)
    text: TowerConfig = field(default_factory=TowerConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    teach: TeachConfig = field(default_factory=TeachConfig)

    def __post_init__(self) -> None:
        if self.teach.models and self.train.loss == "cross_entropy":
            raise ConfigError(
                "teach.models and train.loss = 'cross_entropy' are given together; teachers tell which sentences of a "
                "batch a clip is like, for 'info_nce' and 'sigmoid'"
            )
        if self.teach.models and self.train.batch > self.train.loss_tile:
            raise ConfigError(
                f"train.batch is {self.train.batch:,}, loss_tile {self.train.loss_tile:,}: with teach.models the "
                "batch x batch matrix is formed; take a smaller batch, or a larger loss_tile"
            )
        if self.train.loss == "sigmoid" and self.start.model is None and self.start.bias is None:
            raise ConfigError("train.loss is 'sigmoid', which learns a bias; give start.bias, such as -10")
        if self.data.views > 1 and self.visual.learns == "all":
            raise ConfigError(
                f"data.views is {self.data.views}, but views are kept of a frozen tower alone; "
                "set visual.learns to 'head' or 'nothing'"
            )
