"""Settings of a comparison: the clips and the training budget of every method, and where the methods run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipact import aliases
from clipact.cache import Cache
from clipact.clip_spec import ClipSpec
from clipact.config import load_toml, override, parse, to_table
from clipact.embed.feature_file import FeatureFile
from clipact.embed.write_features import features_metadata
from clipact.engines.engine import Engine
from clipact.progress import ProgressBar, no_progress
from clipact.train.log import StepMetrics
from clipact.train.masked_autoencoder import MaskConfig
from clipact.train.optim import OptimConfig
from clipact.train.recipe import Schedule, TrainConfig
from clipact.train.trainer import Trainer
from clipact.video.augment import Augment


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Steps, rate, and how clips are changed at random."""

    train: TrainConfig
    optim: OptimConfig
    augment: Augment | None = None


@dataclass(frozen=True, kw_only=True)
class PretrainBudget:
    """The same of learning without labels, with what is masked."""

    train: Schedule
    optim: OptimConfig
    augment: Augment | None = None
    mask: MaskConfig = field(default_factory=MaskConfig)


def _whole() -> Budget:
    return Budget(
        train=TrainConfig(loss="cross_entropy", batch=16, chunk=128, graph_memory_gb=4.0, steps=150),
        optim=OptimConfig(lr=1e-3, warmup_steps=15, clip_norm=1.0),
        augment=Augment(scale=(0.6, 1.0), brightness=0.2, contrast=0.2),
    )


def _head() -> Budget:
    return Budget(
        train=TrainConfig(loss="cross_entropy", batch=48, chunk=384, graph_memory_gb=4.0, steps=120),
        optim=OptimConfig(lr=1e-3, warmup_steps=12, clip_norm=1.0),
    )


def _pretraining() -> PretrainBudget:
    return PretrainBudget(
        train=Schedule(batch=32, chunk=256, epochs=300.0),
        optim=OptimConfig(lr=1.5e-3, weight_decay=0.05, betas=(0.9, 0.95), warmup_steps=40),
        augment=Augment(scale=(0.5, 1.0)),
    )


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Set the clips of every method and how methods are trained.

    clip         the frames of every row, and their size; colours are normalised as each model wants them
    whole        of towers that learn whole
    head         of heads over a model's frozen frames
    pretraining  of "videomae+pretraining", before it learns as `whole` says
    workers      processes that decode; they change nothing but the speed
    """

    clip: ClipSpec = field(default_factory=lambda: ClipSpec(size=(64, 64)))
    whole: Budget = field(default_factory=_whole)
    head: Budget = field(default_factory=_head)
    pretraining: PretrainBudget = field(default_factory=_pretraining)
    workers: int = 1


def load_settings(path: str | Path | None = None, *, changes: Sequence[str] = ()) -> CompareSettings:
    """The settings of a TOML file after each `a.b=value` of `changes`; what neither says is as CompareSettings has it.

    ConfigError names a key that is none.
    """
    table = to_table(CompareSettings())
    for layer in ({} if path is None else load_toml(path), *(override({}, change) for change in changes)):
        table = _laid_over(table, aliases.rename(layer, "recipe"))
    return parse(CompareSettings, table)


def _laid_over(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Both tables as one; where the given one says how long, the other's steps or epochs are gone."""
    kept = dict(base)
    if given.keys() & {"steps", "epochs"}:
        kept = {key: value for key, value in base.items() if key not in ("steps", "epochs")}
    for key, value in given.items():
        below = base.get(key)
        kept[key] = _laid_over(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return kept


def _run_all(_: Trainer, reports: Iterator[StepMetrics]) -> None:
    for _report in reports:
        pass


@dataclass(frozen=True, kw_only=True)
class ExecutionContext:
    """Where the methods run, and what shows how far they are.

    progress  shows what is gone through
    follow    takes a training run to its end; where it sets `stopping`, the comparison ends in KeyboardInterrupt
    features  a file of `clipact embed`: rows whose model it is of take their embeddings from it
    """

    device: str = "auto"
    cache: Cache = field(default_factory=Cache)
    progress: ProgressBar = no_progress
    follow: Callable[[Trainer, Iterator[StepMetrics]], None] = _run_all
    features: Path | None = None

    def features_of(self, model: Engine, clip: ClipSpec, *, clips: int) -> Path | None:
        """Return the file of features where it is of this model; FeatureFileError where it has other clips."""
        if self.features is None:
            return None
        with FeatureFile(self.features) as file:
            metadata = file.metadata
        if metadata.model_hash != model.key:
            return None
        wanted = features_metadata(model, model.clip_encoder(clip, clips=clips), per_frame=metadata.per_frame)
        metadata.check_same(wanted, name=str(self.features))
        return self.features
