"""What a row takes, beside what it gets right: parameters, operations, time and memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clipact.cache import Cache
from clipact.progress import ProgressBar, no_progress
from clipact.train.log import StepMetrics
from clipact.train.trainer import Trainer


def _follow(_: Trainer, reports: Iterator[StepMetrics]) -> None:
    for _report in reports:
        pass


@dataclass(frozen=True, kw_only=True)
class ExecutionContext:
    """Device, cache and progress bars of a comparison's runs.

    progress  shows how far frozen towers encode
    follow    takes a training run to its end; where it sets `stopping`, the comparison ends in KeyboardInterrupt
    """

    device: str = "auto"
    cache: Cache = field(default_factory=Cache)
    progress: ProgressBar = no_progress
    follow: Callable[[Trainer, Iterator[StepMetrics]], None] = _follow


@dataclass(frozen=True, kw_only=True)
class ResourceUsage:
    """What a row takes: means over its seeds, but for the least milliseconds and the most memory.

    parameters   of the tower that sees the clips; `learnt`: those that learnt for this row
    gflops, milliseconds  a clip, as `clipact.models.profile.measure` has them
    training_seconds   of all steps, or of a probe's fit; what a frozen tower encodes once is not in it
    pretraining_seconds  the part of them without labels
    explained    of held-out clips, by pretraining: 1 - error / error of each patch's mean
    """

    parameters: int
    learnt: int
    gflops: float
    milliseconds: float
    training_seconds: float
    peak_memory_bytes: int
    pretraining_seconds: float | None = None
    explained: float | None = None


def mean_of(facts: Sequence[dict[str, Any]]) -> ResourceUsage:
    """What a row takes, from what each of its results says."""

    def mean(name: str) -> float | None:
        given = [one[name] for one in facts if name in one]
        return float(np.mean(given)) if given else None

    return ResourceUsage(
        parameters=facts[0]["parameters"],
        learnt=facts[0]["learnt"],
        gflops=facts[0]["gflops"],
        milliseconds=min(one["milliseconds"] for one in facts),
        training_seconds=mean("training_seconds") or 0.0,
        peak_memory_bytes=max(one["peak_memory_bytes"] for one in facts),
        pretraining_seconds=mean("pretraining_seconds"),
        explained=mean("explained"),
    )
