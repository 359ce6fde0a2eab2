"""What a run would do, before it does it: what learns, how much memory it takes, how long it lasts.

And whether its cached gradient is the gradient. Nothing here is written to disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from time import monotonic

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from clipact.data.loader import Batch
from clipact.data.order import seed_from
from clipact.training.loop import Run
from clipact.training.report import memory_bytes, peak_memory_bytes
from clipact.training.retention import Retention, plan_retention
from clipact.training.step import PRECISIONS, inputs_of, loss_of, take_step
from clipact.training.verify import GradientCheck, verify_gradient

_MEASURED_STEPS = 3
_NO_LIMIT_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class TowerPlan:
    """What becomes of one tower: see `TowerConfig`.

    learning, all   numbers of parameters
    kept            whether what its frozen body makes is kept
    batch_norm      what becomes of running statistics: "none there", "frozen", "taken in once a step"
    chunks, kept_chunks   of a batch
    """

    name: str
    learns: str
    learning: int
    all: int
    kept: bool
    batch_norm: str
    chunks: int
    kept_chunks: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would do.

    graph_bytes            what graphs hold at most at a time
    expected_memory_bytes  of the whole process at its peak (on CUDA: of the device)
    step_seconds           one each of the measured steps; () before they are
    measured_memory_bytes  the peak until after them
    """

    steps: int
    entries: int
    batch: int
    accumulate: int
    towers: tuple[TowerPlan, ...]
    later: tuple[str, ...]
    graph_bytes: int
    expected_memory_bytes: int
    step_seconds: tuple[float, ...]
    measured_memory_bytes: int

    @property
    def run_seconds(self) -> float:
        """How long the whole run lasts, judging left out: the best measured step for each of its steps.

        Where more learns from some step on, those steps take longer.
        """
        return self.steps * min(self.step_seconds)


def plan_run(run: Run) -> Plan:
    """The plan of a run after three measured steps; they are real, so the model at hand is changed, but no file is."""
    train, feed = run.recipe.train, run.feed(0)
    batches = feed.batches(0, _MEASURED_STEPS * train.accumulate, batch=train.batch)
    begun = monotonic()
    rows = list(islice(batches, train.accumulate))
    reading = monotonic() - begun
    retention = plan_retention(
        feed.encoders,
        inputs_of(rows[0]),
        chunk_size=train.chunk,
        memory_gb=train.memory_gb or _NO_LIMIT_GB,
        autocast=PRECISIONS[train.precision],
    )
    if not train.memory_gb:
        retention = replace(retention, keep=(0,) * len(retention.keep))
    # Reading pretrained parts, or encoding by frozen ones, may have taken more than a step will.
    expected = max(peak_memory_bytes(run.device), memory_bytes(run.device) + _added_bytes(run, rows[0], retention))
    seconds = []
    for step in range(_MEASURED_STEPS):
        begun = monotonic()
        rows = rows or list(islice(batches, train.accumulate))
        take_step(
            run.encoder,
            feed.encoders,
            rows,
            run.optimizer,
            train,
            seed=seed_from(run.recipe.seed, "step", step),
            retain=retention.keep,
            scaler=run.scaler,
            clip_norm=run.recipe.optim.clip_norm,
        )
        rows = []
        seconds.append(monotonic() - begun + (reading if step == 0 else 0.0))
    sides = {"visual": run.recipe.visual, "text": run.recipe.text}
    return Plan(
        steps=run.steps,
        entries=len(run.entries),
        batch=train.batch,
        accumulate=train.accumulate,
        towers=tuple(
            TowerPlan(
                name=name,
                learns=config.at(0),
                learning=_count(run, name, learning=True),
                all=_count(run, name, learning=False),
                kept=name in feed.keeps,
                batch_norm=_batch_norm(getattr(run.encoder, name)),
                chunks=retention.chunks[place],
                kept_chunks=retention.keep[place],
            )
            for place, (name, config) in enumerate(sides.items())
        ),
        later=tuple(
            f"from step {border} on {name} learns {config.at(border)}"
            for border in run.learning.borders[1:]
            for name, config in sides.items()
            if config.at(border) != config.at(border - 1)
        ),
        graph_bytes=retention.peak_bytes,
        expected_memory_bytes=expected,
        step_seconds=tuple(seconds),
        measured_memory_bytes=peak_memory_bytes(run.device),
    )


def verify_run(run: Run) -> GradientCheck:
    """How far the cached gradient lies from plain autograd's, on the run's model and data; TrainingError past a bound.

    Plain autograd keeps every graph, so three and a half chunks are looked at, not a whole batch.
    """
    train, feed = run.recipe.train, run.feed(0)
    (batch,) = feed.batches(0, 1, batch=min(train.batch, 3 * train.chunk + train.chunk // 2))
    used = {"log_scale": run.encoder.log_scale, "bias": run.encoder.bias}
    return verify_gradient(
        feed.encoders,
        inputs_of(batch),
        loss_fn=loss_of(run.encoder, batch, train),
        loss_parameters={name: parameter for name, parameter in used.items() if parameter is not None},
        chunk_size=train.chunk,
        seed=seed_from(run.recipe.seed, "verify"),
        autocast=PRECISIONS[train.precision],
        # A run's own scaler begins so high that the first gradients overflow, which it then learns from.
        scaler=None if run.scaler is None else torch.amp.GradScaler(run.device.type, init_scale=256.0),
    )


def _added_bytes(run: Run, batch: Batch, retention: Retention) -> int:
    """What a step takes on top of the model and the batch that were there before it."""
    learning = sum(p.numel() * p.element_size() for p in run.encoder.parameters() if p.requires_grad)
    rows, dim, tile = len(batch), run.encoder.dim, min(len(batch), run.recipe.train.loss_tile)
    embeddings = 3 * 2 * rows * dim * 4  # both sides: values, gradients, and a copy in order
    logits = 4 * tile * tile * 4
    return 3 * learning + retention.peak_bytes + embeddings + logits


def _count(run: Run, side: str, *, learning: bool) -> int:
    parameters = getattr(run.encoder, side).parameters()
    return sum(p.numel() for p in parameters if p.requires_grad or not learning)


def _batch_norm(tower: nn.Module) -> str:
    norms: Sequence[_NormBase] = [module for module in tower.modules() if isinstance(module, _NormBase)]
    if not norms:
        return "none there"
    return "taken in once a step" if any(norm.training for norm in norms) else "frozen"
