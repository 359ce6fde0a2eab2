"""Contrastive training: a recipe, clips and sentences become a dual encoder."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from clipact.cache import Cache
from clipact.data.fingerprint import seed_from
from clipact.data.sources import (
    TrainingExample,
    files_seen_csv,
    label_id,
    read_sources,
    read_validation_examples,
    trained_sets,
)
from clipact.errors import ConfigError
from clipact.losses import LOSSES, bound_log_scale, cross_entropy, distillation_loss
from clipact.models import towers, zoo
from clipact.models.checkpoint import FILES_SEEN
from clipact.models.dual_encoder import PRECISIONS, DualEncoder
from clipact.models.save_checkpoint import save_model
from clipact.models.towers.label_embeddings import LabelEmbeddings
from clipact.progress import ProgressBar, no_progress
from clipact.train.chunks import Encoder, RaggedRows, RepeatedRows
from clipact.train.distillation import Teachers
from clipact.train.encoded_batches import EncodedBatches
from clipact.train.freezing import Freezing
from clipact.train.gradcache import cached_step
from clipact.train.graph_budget import plan_graph_budget
from clipact.train.initialization import make_encoder, prior_training
from clipact.train.loader import Batch
from clipact.train.recipe import Recipe, TrainConfig
from clipact.train.trainer import STATE_FILE, StepResult, Trainer, optimizer_step
from clipact.train.validation import metric_names, validate


def take_step(
    encoder: DualEncoder,
    encoders: Sequence[Encoder],
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    *,
    seed: int,
    retain: Sequence[int] | int = 0,
    scaler: torch.amp.GradScaler | None = None,
    clip_norm: float | None = None,
    class_texts: tuple[str, ...] = (),
    teachers: Teachers | None = None,
) -> StepResult:
    """Compute the gradient of a batch's loss, and take one step of the optimiser along it.

    Args:
        encoder: The model.
        encoders: Its two sides, as `cached_step` takes them.
        batch: The rows of the step.
        optimizer: Holds all parameters that are trained.
        config: Loss, chunk size and precision.
        seed: All random numbers follow from it: a new one each step.
        retain: Chunks whose graphs are retained, as `cached_step` takes them.
        scaler: Of the loss, in float16.
        clip_norm: The most that the gradient's norm may be.
        class_texts: The texts of all labels, for "cross_entropy".
        teachers: Models whose similarities have a share in the loss.
    """
    optimizer.zero_grad(set_to_none=True)
    loss = cached_step(
        encoders,
        encoder_inputs(batch, class_texts=class_texts),
        loss_fn=batch_loss(encoder, batch, config, class_texts=class_texts, teachers=teachers),
        chunk_size=config.chunk,
        seed=seed_from(seed, 0),
        retain=retain,
        autocast=PRECISIONS[config.precision],
        scaler=scaler,
    ).item()
    norm = optimizer_step(optimizer, loss=loss, scaler=scaler, clip_norm=clip_norm)
    bound_log_scale(encoder.log_scale)
    return StepResult(loss=loss, gradient_norm=norm, clips=len(batch.repeats), scale=encoder.scale.item())


def encoder_inputs(batch: Batch, *, class_texts: tuple[str, ...] = ()) -> tuple[RepeatedRows, tuple[str, ...]]:
    """Return the inputs of the two encoders: the batch, or its clips and the texts of all labels."""
    return RepeatedRows(RaggedRows(batch.visual), batch.repeats), class_texts or batch.sentences


def batch_loss(
    encoder: DualEncoder,
    batch: Batch,
    config: TrainConfig,
    *,
    class_texts: tuple[str, ...] = (),
    teachers: Teachers | None = None,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of a batch as a function of both sides' embeddings."""
    device = encoder.log_scale.device
    ids = [vector.to(device) for vector in (batch.visual_ids, batch.text_ids, batch.label_ids)]
    tile = config.loss_tile if len(batch) > config.loss_tile else None
    truth = None
    if class_texts:
        truth = torch.tensor([class_texts.index(sentence) for sentence in batch.sentences], device=device)
    weight = 0.0 if teachers is None else teachers.weight
    targets = None if teachers is None else teachers.targets(batch)

    def loss(visual: Tensor, text: Tensor) -> Tensor:
        if truth is not None:
            smoothing = config.label_smoothing
            return cross_entropy(visual, text, scale=encoder.scale, truth=truth, label_smoothing=smoothing)
        own: Tensor = LOSSES[config.loss](
            visual,
            text,
            scale=encoder.scale,
            bias=encoder.bias,
            ids=ids,
            label_smoothing=config.label_smoothing,
            tile=tile,
        )
        if targets is None:
            return own
        return (1 - weight) * own + weight * distillation_loss(visual, text, scale=encoder.scale, targets=targets)

    return loss


class ContrastiveTrainer(Trainer):
    """Training loop of a dual encoder.

    Args:
        recipe: What is trained, on what, and how.
        data: The folder that the recipe's manifests lie below.
        device: Where the model is trained.
        cache: Keeps the features of frozen backbones.
        progress: Shows how far they are encoded.
    """

    def __init__(
        self, recipe: Recipe, *, data: Path, device: torch.device, cache: Cache, progress: ProgressBar = no_progress
    ) -> None:
        self.recipe, self.cache, self.progress = recipe, cache, progress
        self.prior_training = prior_training(recipe.init, *recipe.distillation.teachers)
        supervised = recipe.init.labels_only
        examples = read_sources(recipe.data.sources, data, as_labels=supervised)
        self.validation_sets = {
            one.name: read_validation_examples(one.source, data, as_labels=supervised) for one in recipe.validation.sets
        }
        self.class_texts = _class_texts(examples) if recipe.train.loss == "cross_entropy" else ()
        labels = tuple(sorted({example.label for example in examples if example.label is not None}))
        self.encoder = make_encoder(recipe.init, seed=recipe.seed, labels=labels).to(device)
        self._refuse_untrainable(examples)
        if isinstance(self.encoder.text, LabelEmbeddings):  # it knows its own labels and no others
            own = {label_id(label): (label,) for label in self.encoder.text.labels}
            self.validation_sets = {
                name: replace(held, label_sentences=own) for name, held in self.validation_sets.items()
            }
        recipe.validation.check_monitor(
            [
                f"{name}.{metric}"
                for name, held in self.validation_sets.items()
                for metric in metric_names(len(held.label_sentences))
            ]
        )
        self.freezing = Freezing(visual=recipe.visual, text=recipe.text)
        self._validation_batches: dict[str, EncodedBatches] = {}
        super().__init__(
            recipe,
            self.encoder,
            self.freezing.names_ever(self.encoder),
            examples=examples,
            validate_every=recipe.validation.every_steps,
            device=device,
        )
        self.teachers = self._load_teachers() if recipe.distillation.teachers else None

    def _refuse_untrainable(self, examples: Sequence[TrainingExample]) -> None:
        """Raise before any training for a model that cannot be trained, saved or validated."""
        if self.encoder.text_depends_on_video:
            raise ConfigError(
                "with X-CLIP a sentence's features depend on the video, so that neither side can be encoded by itself, "
                "as training does; begin from a model whose text stands alone, or give it another init.visual"
            )
        if self.recipe.train.loss == "sigmoid" and self.encoder.bias is None:
            raise ConfigError("train.loss is 'sigmoid', but the model has no bias; set init.bias, such as -10")
        for tower in (self.encoder.visual, self.encoder.text):
            towers.describe(tower)
        if isinstance(self.encoder.text, LabelEmbeddings):
            every = (examples, *(held.examples for held in self.validation_sets.values()))
            self.encoder.text.tokenize(sorted({one.label for some in every for one in some if one.label is not None}))

    @property
    def phases(self) -> list[tuple[int, int]]:
        """First step and end of each phase, in which the same parameters are trained."""
        starts = (start for start in self.freezing.phase_starts if start < self.steps)
        return list(pairwise([*starts, self.steps]))

    def encoded_batches(self, step: int) -> EncodedBatches:
        """Return the batches of the phase that begins with this step, and set what is trained in it."""
        self.set_trainable(step=step)
        return self._encoded_batches(self.examples, step)

    def set_trainable(self, *, step: int) -> None:
        """Set which parameters take a gradient and which modules are in training mode in this step."""
        self.freezing.apply(self.encoder, step=step)

    def run_steps(self, out: Path, first: int, last: int) -> Iterator[tuple[StepResult, float]]:
        """Yield the result of each step of a phase as it is taken, and the seconds that it waited for data.

        What frozen backbones and teachers make of all that the steps draw is encoded before the first one.
        """
        encoded = self.encoded_batches(first)
        for one in (encoded, self.teachers):
            if one is not None:
                one.encode(first, last, batch=self.recipe.train.batch)
        self._validation_batches = {
            name: self._encoded_batches(held.examples, first, unaugmented=True)
            for name, held in self.validation_sets.items()
        }
        return self._steps(encoded, first, last, retain=self._retained_chunks(out, encoded, first))

    def validate(self, out: Path) -> dict[str, float]:
        """Return recalls or accuracies of every validation set, 0..1."""
        return {
            f"{name}.{metric}": value
            for name, encoded in self._validation_batches.items()
            for metric, value in validate(encoded, self.validation_sets[name].label_sentences).items()
        }

    def monitored(self, metrics: dict[str, float]) -> float | None:
        """Return the metric that the recipe names, or the first."""
        return self.recipe.validation.monitored(metrics)

    def save_model(self, folder: Path, metrics: dict[str, float]) -> None:
        """Write the dual encoder as a folder."""
        recipe = self.recipe
        save_model(
            self.encoder,
            folder,
            name=recipe.name,
            precision=recipe.train.precision,
            trained_on=tuple(
                dict.fromkeys([*self.prior_training.trained_on, *recipe.trained_on, *trained_sets(recipe.data.sources)])
            ),
            license=recipe.license,
            dtype=torch.float16 if recipe.train.save_as == "fp16" else None,
            notes={"step": self.run_progress.step, "figures": metrics},
            files={FILES_SEEN: self._files_seen},
        )

    def _steps(
        self, encoded: EncodedBatches, first: int, last: int, *, retain: tuple[int, ...]
    ) -> Iterator[tuple[StepResult, float]]:
        train = self.recipe.train
        batches = encoded.batches(first, last, batch=train.batch)
        for step in range(first, last):
            begun = time.monotonic()
            batch = next(batches)
            waited = time.monotonic() - begun
            result = take_step(
                self.encoder,
                encoded.encoders,
                batch,
                self.optimizer,
                train,
                seed=seed_from(self.recipe.seed, "step", step),
                retain=retain,
                scaler=self.scaler,
                clip_norm=self.recipe.optim.clip_norm,
                class_texts=self.class_texts,
                teachers=self.teachers,
            )
            del batch  # before the next one is read: there is memory for one
            yield result, waited

    def _retained_chunks(self, out: Path, encoded: EncodedBatches, first: int) -> tuple[int, ...]:
        """How many chunks' graphs are retained in this phase; what was measured once holds when the run is resumed."""
        train, phase = self.recipe.train, str(self.freezing.phase_start(first))
        if phase not in self.run_progress.retained_chunks:
            retained: tuple[int, ...] = (0, 0)
            if train.graph_memory_gb:
                (batch,) = encoded.batches(first, first + 1, batch=train.batch)
                retained = plan_graph_budget(
                    encoded.encoders,
                    encoder_inputs(batch, class_texts=self.class_texts),
                    chunk_size=train.chunk,
                    graph_memory_gb=train.graph_memory_gb,
                    autocast=PRECISIONS[train.precision],
                ).retain
            known = self.run_progress.retained_chunks | {phase: retained}
            self.run_progress = replace(self.run_progress, retained_chunks=known)
            self.state.save(out / STATE_FILE, self.run_progress)
        return self.run_progress.retained_chunks[phase]

    @cached_property
    def _files_seen(self) -> str:
        # It reads every file: once a run.
        return files_seen_csv(self.examples, before=self.prior_training.files)

    def _encoded_batches(
        self, examples: Sequence[TrainingExample], step: int, *, unaugmented: bool = False
    ) -> EncodedBatches:
        sides = {"visual": self.recipe.visual, "text": self.recipe.text}
        frozen = tuple(side for side, config in sides.items() if config.at(step) != "all")
        cached_sides = frozen if self.recipe.data.cache else ()
        return self._encoded_batches_of(self.encoder, examples, cached_sides=cached_sides, unaugmented=unaugmented)

    def _load_teachers(self) -> Teachers:
        encoded = []
        for name in self.recipe.distillation.teachers:
            encoder = zoo.load_model(name, device=str(self.device)).encoder.requires_grad_(False)
            if encoder.text_depends_on_video:
                raise ConfigError(
                    f"distillation.teachers has {name}, whose sentences depend on the video; take another"
                )
            both = ("visual", "text")
            encoded.append(self._encoded_batches_of(encoder, self.examples, cached_sides=both, unaugmented=True))
        return Teachers(encoded, weight=self.recipe.distillation.weight)

    def _encoded_batches_of(
        self,
        encoder: DualEncoder,
        examples: Sequence[TrainingExample],
        *,
        cached_sides: tuple[str, ...],
        unaugmented: bool,
    ) -> EncodedBatches:
        return EncodedBatches(
            encoder,
            examples,
            self.recipe.data,
            chunk=self.recipe.train.chunk,
            seed=self.recipe.seed,
            cached_sides=cached_sides,
            unreadable_files=self.unreadable_files,
            cache=self.cache,
            progress=self.progress,
            unaugmented=unaugmented,
            precision="fp32" if unaugmented else self.recipe.train.precision,
            step_sentences=self.class_texts if examples is self.examples else (),
        )


def _class_texts(examples: Sequence[TrainingExample]) -> tuple[str, ...]:
    """The one sentence of each label, in the order of labels."""
    texts: dict[str, str] = {}
    for example in examples:
        if example.label is None or len(example.sentences) > 1:
            seen = "captions" if example.label is None else f"{len(example.sentences)} sentences for {example.label!r}"
            raise ConfigError(
                f"train.loss is 'cross_entropy', which takes one sentence a label; {example.file} has {seen}: give "
                "data.sources labels and prompts = 'bare', or take train.loss = 'info_nce'"
            )
        texts[example.label] = example.sentences[0]
    return tuple(texts[label] for label in sorted(texts))
