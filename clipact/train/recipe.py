"""Recipe of contrastive training: everything that decides a run but the data themselves, in one TOML file.

Tables of what lives in one module (init, optim, visual and text, a source) stand there; all others are here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from clipact import aliases
from clipact.config import load_toml, override, parse
from clipact.data.sources import SourceConfig
from clipact.errors import ConfigError, choices
from clipact.models.checkpoint import Precision
from clipact.train.freezing import TowerConfig
from clipact.train.initialization import InitConfig
from clipact.train.loader import ReadConfig
from clipact.train.optim import OptimConfig


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The steps of a run.

    batch            examples a batch; it has a row for each clip of an example with each of its sentences
    chunk            frames that are encoded at once: what memory for graphs depends on
    steps, epochs    how long; one of the two
    precision        inside the networks, those that stay as they are too; weights are always kept in 32 bits
    save_minutes     between two checkpoints
    save_as          precision of the weights of the finished model
    """

    batch: int = 256
    chunk: int = 64
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
        for name in ("batch", "chunk"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it is at least 1")
        if self.save_minutes < 0:
            raise ConfigError(f"save_minutes is {self.save_minutes:g}; it is not below 0")

    def count_steps(self, examples: int) -> int:
        """How many steps there are, over so many examples an epoch; at least 1."""
        return self.steps or max(1, round((self.epochs or 0) * examples / self.batch))


@dataclass(frozen=True, kw_only=True)
class BaseRecipe:
    """Keys of every recipe.

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
        table = override(table, change, rename=lambda assigned: aliases.rename(assigned, "recipe"))
    return parse(kind, table)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Schedule):
    """The steps of a run on clips and sentences.

    loss             a name in `clipact.losses.LOSSES`: every text of a batch is a negative of every clip; or
                     "cross_entropy": the texts of all labels are, whether a batch has them or not
    loss_tile        batches of more rows have their loss in tiles of this side, without a batch x batch matrix
    graph_memory_gb  for graphs that are retained, so that their chunks are encoded once only; 0 retains none
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
class DataConfig(ReadConfig):
    """Training data, and how they are read.

    sources               manifests and protocols, mixed in one stream
    cache                 keep the features of frozen backbones, so that each is encoded once
    cached_augmentations  with a frozen visual backbone: versions that are kept of each clip, the first unaugmented
    """

    sources: tuple[SourceConfig, ...]
    cache: bool = True
    cached_augmentations: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sources:
            raise ConfigError("data.sources is empty; name one manifest or protocol at least, under [[data.sources]]")
        if self.cached_augmentations < 1:
            raise ConfigError(f"data.cached_augmentations is {self.cached_augmentations}; it is at least 1")
        if self.cached_augmentations > 1 and (self.augment is None or not self.cache):
            raise ConfigError(
                f"data.cached_augmentations is {self.cached_augmentations}, but without data.augment and data.cache "
                "there is one only"
            )


@dataclass(frozen=True, kw_only=True)
class ValidationSet:
    """Held-out samples of one source: captions are retrieved both ways, labels are recognised by their prompts.

    The keys are those of a source in data.sources.
    """

    name: str
    manifest: Path | None = None
    root: Path | None = None
    labels: str | None = None
    protocol: str | None = None
    split: str = "dev"
    frames: int = 1
    clips: int = 1
    prompts: str | None = None

    def __post_init__(self) -> None:
        _ = self.source  # which refuses what goes ill together

    @property
    def source(self) -> SourceConfig:
        """The same as something to read from."""
        return SourceConfig(
            manifest=self.manifest,
            root=self.root,
            labels=self.labels,
            protocol=self.protocol,
            split=self.split,
            frames=self.frames,
            clips=self.clips,
            prompts=self.prompts,
        )


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """When a model is validated, and on what.

    every_steps  steps between two validations; 0 validates after the last step alone
    monitor      the metric whose highest value marks the best step, such as "dev.text_to_visual_recall_1"; by default
                 the first of the first set
    """

    every_steps: int = 0
    sets: tuple[ValidationSet, ...] = ()
    monitor: str | None = None

    def __post_init__(self) -> None:
        if self.every_steps < 0:
            raise ConfigError(f"validation.every_steps is {self.every_steps}; it is a number of steps, or 0")
        names = [one.name for one in self.sets]
        if len(set(names)) < len(names):
            raise ConfigError(f"validation.sets have the names {', '.join(names)}; each needs its own")

    def check_monitor(self, names: Sequence[str]) -> None:
        """Raise ConfigError if `monitor` is none of the metrics that the sets give."""
        if self.monitor is not None and self.monitor not in names:
            raise ConfigError(f"validation.monitor is {self.monitor!r}; {choices(self.monitor, names)}")

    def monitored(self, metrics: dict[str, float]) -> float | None:
        """Return the metric that marks the best step; None without validation sets."""
        return metrics[self.monitor or next(iter(metrics))] if metrics else None


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Teachers of a run.

    teachers  names that `clipact.models.zoo.load_model` knows: an ensemble, whose probabilities are averaged
    weight    of the distillation loss; the loss on the data has the rest
    """

    teachers: tuple[str, ...] = ()
    weight: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise ConfigError(f"distillation.weight is {self.weight:g}; it lies above 0, and is 1 at most")


@dataclass(frozen=True, kw_only=True)
class Recipe(BaseRecipe):
    """A whole run; `visual` and `text` say how much of each tower is trained."""

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
                "distillation.teachers and train.loss = 'cross_entropy' are given together; teachers tell which "
                "sentences of a batch a clip is like, for 'info_nce' and 'sigmoid'"
            )
        if self.distillation.teachers and self.train.batch > self.train.loss_tile:
            raise ConfigError(
                f"train.batch is {self.train.batch:,}, loss_tile {self.train.loss_tile:,}: with "
                "distillation.teachers the batch x batch matrix is formed; take a smaller batch, or a larger loss_tile"
            )
        if self.train.loss == "sigmoid" and self.init.model is None and self.init.bias is None:
            raise ConfigError("train.loss is 'sigmoid', which learns a bias; give init.bias, such as -10")
        if self.data.cached_augmentations > 1 and self.visual.trainable == "all":
            raise ConfigError(
                f"data.cached_augmentations is {self.data.cached_augmentations}, but features are cached of a frozen "
                "tower alone; set visual.trainable to 'head' or 'nothing'"
            )
