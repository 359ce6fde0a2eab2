"""What every recipe says, whatever is learnt: names, seed, how long, how fast."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from clipact.config import load_toml, override, parse
from clipact.errors import ConfigError
from clipact.model_config import Precision
from clipact.training.optim import OptimConfig


@dataclass(frozen=True, kw_only=True)
class Pace:
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
class Outline:
    """What every recipe says.

    name          of the model that comes out
    trained_on    what that model says of its data, so that no score on them passes for zero-shot
    """

    name: str
    seed: int = 0
    license: str = ""
    trained_on: tuple[str, ...]
    train: Pace
    optim: OptimConfig = field(default_factory=OptimConfig)


AnyRecipe = TypeVar("AnyRecipe", bound=Outline)


def load_recipe(path: str | Path, kind: type[AnyRecipe], *, changes: Sequence[str] = ()) -> AnyRecipe:
    """The recipe in a TOML file after each `a.b=value` of `changes`; ConfigError names a key that is none."""
    table = load_toml(path)
    for change in changes:
        table = override(table, change)
    return parse(kind, table)
