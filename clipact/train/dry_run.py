"""Dry run of training: what is trained, how much memory it takes and how long it lasts, measured on a few steps.

`verify_run` compares its cached gradient with plain autograd's. Of what frozen backbones encode, the measured steps get
what they draw, in a folder that is removed; nothing else is written to disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from tempfile import TemporaryDirectory
from time import monotonic

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from clipact.cache import Cache
from clipact.data.fingerprint import seed_from
from clipact.models.dual_encoder import PRECISIONS
from clipact.train.contrastive import ContrastiveTrainer, batch_loss, encoder_inputs, take_step
from clipact.train.distillation import Teachers
from clipact.train.encoded_batches import EncodedBatches
from clipact.train.encoding_plan import EncodingPlan, RunEncoding, plan_run_encoding
from clipact.train.graph_budget import GraphBudget, plan_graph_budget
from clipact.train.loader import Batch
from clipact.train.log import memory_bytes, peak_memory_bytes
from clipact.train.optim import set_rate
from clipact.train.verify_gradient import GradientCheck, verify_gradient

_MEASURED_STEPS = 3
_NO_LIMIT_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class TowerPlan:
    """Plan of one tower: see `TowerConfig`.

    trained_parameters, parameters  how many there are
    cached      whether the features of its frozen backbone are cached
    batch_norm  what becomes of running statistics: "none there", "frozen", "each chunk taken in once a step"
    chunks, retained_chunks  of a batch
    """

    name: str
    trainable: str
    trained_parameters: int
    parameters: int
    cached: bool
    batch_norm: str
    chunks: int
    retained_chunks: int


@dataclass(frozen=True, kw_only=True)
class PhasePlan:
    """Plan of the steps `first` up to and without `last`, in which the same parameters are trained.

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

    encoding               by frozen backbones, those of teachers too, before the steps
    expected_memory_bytes  of the whole process at its peak (on CUDA: of the device), before a step was measured
    measured_memory_bytes  the peak until after the measured steps
    """

    steps: int
    examples: int
    batch: int
    encoding: EncodingPlan = field(default_factory=EncodingPlan)
    phases: tuple[PhasePlan, ...]
    expected_memory_bytes: int
    measured_memory_bytes: int

    @property
    def steps_seconds(self) -> float:
        """How long all steps last: the best measured step for each step of its phase."""
        return sum((phase.last - phase.first) * min(phase.step_seconds) for phase in self.phases)

    @property
    def run_seconds(self) -> float:
        """How long the whole run lasts, encoding and steps, validation left out."""
        return self.encoding.clip_seconds + self.encoding.sentence_seconds + self.steps_seconds


def dry_run(trainer: ContrastiveTrainer) -> DryRun:
    """Return the plan of a run after three measured steps of each of its phases.

    They are real steps, so the model at hand is changed, but no file is. Frozen backbones encode what these steps draw
    and no more.
    """
    phases, expected, encoding = [], 0, RunEncoding()
    for first, last in trainer.phases:
        measured = min(first + _MEASURED_STEPS, last)
        with TemporaryDirectory(prefix="clipact-") as folder:
            encoded = trainer.encoded_batches(first).in_cache(Cache(folder))
            teachers = None if trainer.teachers is None else trainer.teachers.in_cache(Cache(folder))
            if first == 0:
                encoding = plan_run_encoding(trainer, encoded, teachers, measured=measured)
            for one in (encoded, teachers):
                if one is not None:
                    one.encode(first, measured, batch=trainer.recipe.train.batch)
        phase, bytes_ = _plan_phase(trainer, encoded, teachers, range(first, last))
        phases.append(phase)
        expected = max(expected, bytes_ + encoding.added_bytes(encoded, teachers))
    return DryRun(
        steps=trainer.steps,
        examples=len(trainer.examples),
        batch=trainer.recipe.train.batch,
        encoding=encoding.own + encoding.teachers,
        phases=tuple(phases),
        expected_memory_bytes=expected,
        measured_memory_bytes=peak_memory_bytes(trainer.device),
    )


def _plan_phase(
    trainer: ContrastiveTrainer, encoded: EncodedBatches, teachers: Teachers | None, steps: range
) -> tuple[PhasePlan, int]:
    """A phase, and the peak of memory that was expected for it."""
    train, first, last = trainer.recipe.train, steps.start, steps.stop
    last_measured = min(first + _MEASURED_STEPS, last)
    batches = encoded.batches(first, last_measured, batch=train.batch)
    begun = monotonic()
    batch: Batch | None = next(batches)
    assert batch is not None
    reading = monotonic() - begun
    budget = plan_graph_budget(
        encoded.encoders,
        encoder_inputs(batch, class_texts=trainer.class_texts),
        chunk_size=train.chunk,
        graph_memory_gb=train.graph_memory_gb or _NO_LIMIT_GB,
        autocast=PRECISIONS[train.precision],
    )
    if not train.graph_memory_gb:
        budget = replace(budget, retain=(0,) * len(budget.retain))
    # Reading pretrained parts, or encoding by frozen ones, may have taken more than a step will.
    added = _added_bytes(trainer, batch, budget)
    expected = max(peak_memory_bytes(trainer.device), memory_bytes(trainer.device) + added)
    seconds = []
    for step in range(first, last_measured):
        begun = monotonic()
        batch = batch or next(batches)
        set_rate(trainer.optimizer, step=step - first, steps=last - first, config=trainer.recipe.optim)
        take_step(
            trainer.encoder,
            encoded.encoders,
            batch,
            trainer.optimizer,
            train,
            seed=seed_from(trainer.recipe.seed, "step", step),
            retain=budget.retain,
            scaler=trainer.scaler,
            clip_norm=trainer.recipe.optim.clip_norm,
            class_texts=trainer.class_texts,
            teachers=teachers,
        )
        batch = None
        seconds.append(monotonic() - begun + (reading if step == first else 0.0))
    towers = tuple(
        TowerPlan(
            name=name,
            trainable=config.at(first),
            trained_parameters=_count(trainer, name, trained=True),
            parameters=_count(trainer, name, trained=False),
            cached=name in encoded.cached_sides,
            batch_norm=_batch_norm(getattr(trainer.encoder, name)),
            chunks=budget.chunks[place],
            retained_chunks=budget.retain[place],
        )
        for place, (name, config) in enumerate({"visual": trainer.recipe.visual, "text": trainer.recipe.text}.items())
    )
    phase = PhasePlan(first=first, last=last, towers=towers, graph_bytes=budget.peak_bytes, step_seconds=tuple(seconds))
    return phase, expected


def verify_run(trainer: ContrastiveTrainer) -> dict[int, GradientCheck]:
    """How far the cached gradient lies from plain autograd's, on the run's model and data; TrainingError past a bound.

    By the first step of each phase. Plain autograd keeps every graph, so as many examples
    are looked at as three and a half chunks hold, not a whole batch.
    """
    train = trainer.recipe.train
    used = {"log_scale": trainer.encoder.log_scale, "bias": trainer.encoder.bias}
    checks: dict[int, GradientCheck] = {}
    for first, _ in trainer.phases:
        encoded = trainer.encoded_batches(first)
        kept = "visual" in encoded.cached_sides  # a clip's features are one row, however many frames it had
        most = max(max(one.clips * (1 if kept else one.frames), one.sentences_drawn) for one in trainer.examples)
        batch = min(train.batch, max(2, (3 * train.chunk + train.chunk // 2) // most))
        (looked_at,) = encoded.batches(0, 1, batch=batch)
        if trainer.teachers is not None:
            trainer.teachers.encode(0, 1, batch=batch)
        # Every chunk encoded twice; then, where graphs are kept, one of them: a lone chunk must not pass by being kept.
        for retain in (0, 1) if train.graph_memory_gb else (0,):
            check = verify_gradient(
                encoded.encoders,
                encoder_inputs(looked_at, class_texts=trainer.class_texts),
                loss_fn=batch_loss(
                    trainer.encoder, looked_at, train, class_texts=trainer.class_texts, teachers=trainer.teachers
                ),
                loss_parameters={name: parameter for name, parameter in used.items() if parameter is not None},
                chunk_size=train.chunk,
                seed=seed_from(trainer.recipe.seed, "verify"),
                retain=retain,
                autocast=PRECISIONS[train.precision],
                # A run's own scaler begins so high that the first gradients overflow, which it then learns from.
                scaler=None if trainer.scaler is None else torch.amp.GradScaler(trainer.device.type, init_scale=256.0),
            )
            checks[first] = check if first not in checks else checks[first].worse(check)
    return checks


def _added_bytes(trainer: ContrastiveTrainer, batch: Batch, budget: GraphBudget) -> int:
    """What a step takes on top of the model and the batch that were there before it."""
    learning = [p for p in trainer.encoder.parameters() if p.requires_grad]
    # A gradient each, and AdamW's two means of it where no earlier phase has made them.
    weights = sum(p.numel() * p.element_size() * (1 if p in trainer.optimizer.state else 3) for p in learning)
    rows, dim, tile = len(batch), trainer.encoder.dim, min(len(batch), trainer.recipe.train.loss_tile)
    embeddings = 3 * 2 * rows * dim * 4  # both sides: values, gradients, and a copy in order
    logits = 4 * tile * tile * 4
    return weights + budget.peak_bytes + embeddings + logits


def _count(trainer: ContrastiveTrainer, side: str, *, trained: bool) -> int:
    parameters = getattr(trainer.encoder, side).parameters()
    return sum(p.numel() for p in parameters if p.requires_grad or not trained)


def _batch_norm(tower: nn.Module) -> str:
    norms: Sequence[_NormBase] = [module for module in tower.modules() if isinstance(module, _NormBase)]
    if not norms:
        return "none there"
    return "each chunk taken in once a step" if any(norm.training for norm in norms) else "frozen"
