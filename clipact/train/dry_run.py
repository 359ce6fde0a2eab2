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

from clipact.data.fingerprint import seed_from
from clipact.data.loader import Batch
from clipact.models.dual_encoder import PRECISIONS
from clipact.train.contrastive import ContrastiveTrainer, inputs_of, loss_of, take_step
from clipact.train.graph_budget import GraphBudget, plan_graph_budget
from clipact.train.log import memory_bytes, peak_memory_bytes
from clipact.train.optim import set_rate
from clipact.train.verify_gradient import GradientCheck, verify_gradient

_MEASURED_STEPS = 3
_NO_LIMIT_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class TowerPlan:
    """What becomes of one tower: see `TowerConfig`.

    learning, all   numbers of parameters
    kept            whether what its frozen body makes is kept
    batch_norm      what becomes of running statistics: "none there", "frozen", "each chunk taken in once a step"
    chunks, kept_chunks   of a batch
    """

    name: str
    trainable: str
    learning: int
    all: int
    kept: bool
    batch_norm: str
    chunks: int
    kept_chunks: int


@dataclass(frozen=True, kw_only=True)
class PhasePlan:
    """What becomes of the steps `first` up to and without `last`, in which the same things learn.

    graph_bytes   what graphs hold at most at a time
    step_seconds  one each of the steps that were measured
    """

    first: int
    last: int
    towers: tuple[TowerPlan, ...]
    graph_bytes: int
    step_seconds: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a run would do.

    expected_memory_bytes  of the whole process at its peak (on CUDA: of the device), before a step was measured
    measured_memory_bytes  the peak until after the measured steps
    """

    steps: int
    entries: int
    batch: int
    accumulate: int
    phases: tuple[PhasePlan, ...]
    expected_memory_bytes: int
    measured_memory_bytes: int

    @property
    def run_seconds(self) -> float:
        """How long the whole run lasts, judging left out: the best measured step for each step of its phase."""
        return sum((phase.last - phase.first) * min(phase.step_seconds) for phase in self.phases)


def dry_run(run: ContrastiveTrainer) -> DryRun:
    """The plan of a run after three measured steps of each of its phases.

    They are real steps, so the model at hand is changed, but no file is.
    """
    phases, expected = [], 0
    for first, last in run.phases:
        phase, bytes_ = _plan_phase(run, first, last)
        phases.append(phase)
        expected = max(expected, bytes_)
    return DryRun(
        steps=run.steps,
        entries=len(run.entries),
        batch=run.recipe.train.batch,
        accumulate=run.recipe.train.accumulate,
        phases=tuple(phases),
        expected_memory_bytes=expected,
        measured_memory_bytes=peak_memory_bytes(run.device),
    )


def _plan_phase(run: ContrastiveTrainer, first: int, last: int) -> tuple[PhasePlan, int]:
    """A phase, and the peak of memory that was expected for it."""
    train, feed, last_measured = run.recipe.train, run.feed(first), min(first + _MEASURED_STEPS, last)
    batches = feed.batches(first * train.accumulate, last_measured * train.accumulate, batch=train.batch)
    begun = monotonic()
    rows = list(islice(batches, train.accumulate))
    reading = monotonic() - begun
    retention = plan_graph_budget(
        feed.encoders,
        inputs_of(rows[0], answers=run.answers),
        chunk_size=train.chunk,
        graph_memory_gb=train.graph_memory_gb or _NO_LIMIT_GB,
        autocast=PRECISIONS[train.precision],
    )
    if not train.graph_memory_gb:
        retention = replace(retention, keep=(0,) * len(retention.keep))
    # Reading pretrained parts, or encoding by frozen ones, may have taken more than a step will.
    expected = max(peak_memory_bytes(run.device), memory_bytes(run.device) + _added_bytes(run, rows[0], retention))
    seconds = []
    for step in range(first, last_measured):
        begun = monotonic()
        rows = rows or list(islice(batches, train.accumulate))
        set_rate(run.optimizer, step=step - first, steps=last - first, config=run.recipe.optim)
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
            answers=run.answers,
            teachers=run.teachers,
        )
        rows = []
        seconds.append(monotonic() - begun + (reading if step == first else 0.0))
    towers = tuple(
        TowerPlan(
            name=name,
            trainable=config.at(first),
            learning=_count(run, name, learning=True),
            all=_count(run, name, learning=False),
            kept=name in feed.keeps,
            batch_norm=_batch_norm(getattr(run.encoder, name)),
            chunks=retention.chunks[place],
            kept_chunks=retention.keep[place],
        )
        for place, (name, config) in enumerate({"visual": run.recipe.visual, "text": run.recipe.text}.items())
    )
    phase = PhasePlan(
        first=first, last=last, towers=towers, graph_bytes=retention.peak_bytes, step_seconds=tuple(seconds)
    )
    return phase, expected


def verify_run(run: ContrastiveTrainer) -> dict[int, GradientCheck]:
    """How far the cached gradient lies from plain autograd's, on the run's model and data; TrainingError past a bound.

    By each step from which on something else learns than before. Plain autograd keeps every graph, so as many entries
    are looked at as three and a half chunks hold, not a whole batch.
    """
    train = run.recipe.train
    used = {"log_scale": run.encoder.log_scale, "bias": run.encoder.bias}
    checks: dict[int, GradientCheck] = {}
    for first, _ in run.phases:
        feed = run.feed(first)
        kept = "visual" in feed.keeps  # a clip's features are one row, however many frames it had
        most = max(max(entry.clips * (1 if kept else entry.frames), entry.drawn) for entry in run.entries)
        batch = min(train.batch, max(2, (3 * train.chunk + train.chunk // 2) // most))
        (looked_at,) = feed.batches(0, 1, batch=batch)
        # Every chunk encoded twice; then, where graphs are kept, one of them: a lone chunk must not pass by being kept.
        for retain in (0, 1) if train.graph_memory_gb else (0,):
            check = verify_gradient(
                feed.encoders,
                inputs_of(looked_at, answers=run.answers),
                loss_fn=loss_of(run.encoder, looked_at, train, answers=run.answers, teachers=run.teachers),
                loss_parameters={name: parameter for name, parameter in used.items() if parameter is not None},
                chunk_size=train.chunk,
                seed=seed_from(run.recipe.seed, "verify"),
                retain=retain,
                autocast=PRECISIONS[train.precision],
                # A run's own scaler begins so high that the first gradients overflow, which it then learns from.
                scaler=None if run.scaler is None else torch.amp.GradScaler(run.device.type, init_scale=256.0),
            )
            checks[first] = check if first not in checks else checks[first].worse(check)
    return checks


def _added_bytes(run: ContrastiveTrainer, batch: Batch, retention: GraphBudget) -> int:
    """What a step takes on top of the model and the batch that were there before it."""
    learning = [p for p in run.encoder.parameters() if p.requires_grad]
    # A gradient each, and AdamW's two means of it where no earlier phase has made them.
    weights = sum(p.numel() * p.element_size() * (1 if p in run.optimizer.state else 3) for p in learning)
    rows, dim, tile = len(batch), run.encoder.dim, min(len(batch), run.recipe.train.loss_tile)
    embeddings = 3 * 2 * rows * dim * 4  # both sides: values, gradients, and a copy in order
    logits = 4 * tile * tile * 4
    return weights + retention.peak_bytes + embeddings + logits


def _count(run: ContrastiveTrainer, side: str, *, learning: bool) -> int:
    parameters = getattr(run.encoder, side).parameters()
    return sum(p.numel() for p in parameters if p.requires_grad or not learning)


def _batch_norm(tower: nn.Module) -> str:
    norms: Sequence[_NormBase] = [module for module in tower.modules() if isinstance(module, _NormBase)]
    if not norms:
        return "none there"
    return "each chunk taken in once a step" if any(norm.training for norm in norms) else "frozen"
