"""Contrastive training: a recipe, clips and sentences become a dual encoder, in the course that any run takes."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path

import torch
from torch import Tensor

from clipact.cache import Cache
from clipact.data.fingerprint import seed_from
from clipact.data.loader import Batch
from clipact.data.sources import TrainingExample, files_seen_csv, read_sources, trained_sets
from clipact.errors import ConfigError
from clipact.losses import LOSSES, bound_log_scale, cross_entropy, distillation_loss
from clipact.models import towers, zoo
from clipact.models.checkpoint import FILES_SEEN
from clipact.models.dual_encoder import PRECISIONS, DualEncoder
from clipact.models.save_checkpoint import save_model
from clipact.models.towers.label_embeddings import LabelEmbeddings
from clipact.train.chunks import Encoder, RaggedRows, RepeatedRows
from clipact.train.distillation import Teachers
from clipact.train.encoded_batches import EncodedBatches
from clipact.train.feature_cache import Watch
from clipact.train.freezing import Freezing
from clipact.train.gradcache import cached_step
from clipact.train.graph_budget import plan_graph_budget
from clipact.train.initialization import make_encoder, prior_training
from clipact.train.recipe import Recipe, TrainConfig
from clipact.train.trainer import STATE_FILE, StepResult, Trainer, optimizer_step
from clipact.train.validation import metric_names, validate


def take_step(
    encoder: DualEncoder,
    encoders: Sequence[Encoder],
    batches: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    *,
    seed: int,
    retain: Sequence[int] | int = 0,
    scaler: torch.amp.GradScaler | None = None,
    clip_norm: float | None = None,
    answers: tuple[str, ...] = (),
    teachers: Teachers | None = None,
) -> StepResult:
    """Take the gradient of the mean of the batches' losses, and one step of the optimiser along it.

    All random numbers follow from `seed`: a new one each step. `answers` are all that could be said of a clip, for
    "cross_entropy"; `teachers` have a share in each batch's loss.
    """
    optimizer.zero_grad(set_to_none=True)
    loss = 0.0
    for number, batch in enumerate(batches):
        value = cached_step(
            encoders,
            inputs_of(batch, answers=answers),
            loss_fn=loss_of(encoder, batch, config, answers=answers, teachers=teachers, share=1 / len(batches)),
            chunk_size=config.chunk,
            seed=seed_from(seed, number),
            retain=retain,
            autocast=PRECISIONS[config.precision],
            scaler=scaler,
        )
        loss += value.item()
    norm = optimizer_step(optimizer, loss=loss, scaler=scaler, clip_norm=clip_norm)
    bound_log_scale(encoder.log_scale)
    clips = sum(len(batch.repeats) for batch in batches)
    return StepResult(loss=loss, gradient_norm=norm, clips=clips, scale=encoder.scale.item())


def inputs_of(batch: Batch, *, answers: tuple[str, ...] = ()) -> tuple[RepeatedRows, tuple[str, ...]]:
    """What the two encoders are given: the batch, or its clips and every answer."""
    return RepeatedRows(RaggedRows(batch.visual), batch.repeats), answers or batch.sentences


def loss_of(
    encoder: DualEncoder,
    batch: Batch,
    config: TrainConfig,
    *,
    answers: tuple[str, ...] = (),
    teachers: Teachers | None = None,
    share: float = 1.0,
) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of a batch as a function of both sides' embeddings, times `share`."""
    device = encoder.log_scale.device
    ids = [vector.to(device) for vector in (batch.visual_ids, batch.text_ids, batch.label_ids)]
    tile = config.loss_tile if len(batch) > config.loss_tile else None
    truth = torch.tensor([answers.index(sentence) for sentence in batch.sentences], device=device) if answers else None
    taught = 0.0 if teachers is None else teachers.share
    targets = None if teachers is None else teachers.targets(batch)

    def loss(visual: Tensor, text: Tensor) -> Tensor:
        if truth is not None:
            smoothing = config.label_smoothing
            return share * cross_entropy(visual, text, scale=encoder.scale, truth=truth, label_smoothing=smoothing)
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
            return share * own
        return share * (
            (1 - taught) * own + taught * distillation_loss(visual, text, scale=encoder.scale, targets=targets)
        )

    return loss


class ContrastiveTrainer(Trainer):
    """A recipe, with its model and data at hand."""

    def __init__(self, recipe: Recipe, *, data: Path, device: torch.device, cache: Cache, watch: Watch) -> None:
        self.recipe, self.cache, self.watch = recipe, cache, watch
        self.learnt_before = prior_training(recipe.init, *recipe.distillation.teachers)
        own, held = recipe.init.labels_only, recipe.validation.sets
        entries = read_sources(recipe.data.sources, data, as_labels=own)
        self.judged = {one.name: read_sources([one.source], data, as_labels=own) for one in held}
        self.answers = _answers(entries) if recipe.train.loss == "cross_entropy" else ()
        labels = tuple(sorted({entry.label for entry in entries if entry.label is not None}))
        self.encoder = make_encoder(recipe.init, seed=recipe.seed, labels=labels).to(device)
        if self.encoder.text_depends_on_video:
            raise ConfigError(
                "with X-CLIP a sentence's features depend on the video, so that neither side can be encoded by itself, "
                "as training does; begin from a model whose text stands alone, or give it another init.visual"
            )
        if recipe.train.loss == "sigmoid" and self.encoder.bias is None:
            raise ConfigError("train.loss is 'sigmoid', but the model has no bias; set init.bias, such as -10")
        for tower in (self.encoder.visual, self.encoder.text):
            towers.describe(tower)  # what cannot be saved is said before it is trained
        if isinstance(
            self.encoder.text, LabelEmbeddings
        ):  # a label without a vector is named now, not when it is judged
            known = [one.label for some in (entries, *self.judged.values()) for one in some if one.label is not None]
            self.encoder.text.tokenize(sorted(set(known)))
        recipe.validation.check_monitor(
            [f"{name}.{x}" for name, held in self.judged.items() for x in metric_names(held)]
        )
        self.learning = Freezing(visual=recipe.visual, text=recipe.text)
        self._judged_feeds: dict[str, EncodedBatches] = {}
        super().__init__(
            recipe,
            self.encoder,
            self.learning.names_ever(self.encoder),
            entries=entries,
            judge_every=recipe.validation.every_steps,
            device=device,
        )
        self.teachers = self._teachers() if recipe.distillation.teachers else None

    @property
    def phases(self) -> list[tuple[int, int]]:
        """First and last step of each stretch in which the same things learn."""
        return list(pairwise([*(border for border in self.learning.borders if border < self.steps), self.steps]))

    def feed(self, step: int) -> EncodedBatches:
        """What the model is fed from this step on, as long as the same things learn; sets what learns.

        Teachers have seen it all by then.
        """
        if self.teachers is not None:
            self.teachers.look()
        self.set_learning(step=step)
        return self._feed(self.entries, step)

    def set_learning(self, *, step: int) -> None:
        """Set what takes a gradient and which modules are in training mode, as the recipe says for this step."""
        self.learning.apply(self.encoder, step=step)

    def take_steps(self, out: Path, first: int, last: int) -> Iterator[tuple[StepResult, float]]:
        """What each step of a phase came to, as it is taken, and the seconds that it waited for data.

        What frozen towers make of the data is encoded before the first one.
        """
        feed = self.feed(first)
        self._judged_feeds = {name: self._feed(held, first, judging=True) for name, held in self.judged.items()}
        return self._steps(feed, first, last, retain=self._kept_chunks(out, feed, first))

    def figures(self, out: Path) -> dict[str, float]:
        """Recalls or accuracies of every judged set, 0..1."""
        return {
            f"{name}.{figure}": value
            for name, feed in self._judged_feeds.items()
            for figure, value in validate(feed).items()
        }

    def pick(self, figures: dict[str, float]) -> float | None:
        """The figure that the recipe names, or the first."""
        return self.recipe.validation.pick(figures)

    def save_model(self, folder: Path, figures: dict[str, float]) -> None:
        """Write the dual encoder as a folder."""
        recipe = self.recipe
        save_model(
            self.encoder,
            folder,
            name=recipe.name,
            precision=recipe.train.precision,
            trained_on=tuple(
                dict.fromkeys([*self.learnt_before.trained_on, *recipe.trained_on, *trained_sets(recipe.data.sources)])
            ),
            license=recipe.license,
            dtype=torch.float16 if recipe.train.save_as == "fp16" else None,
            notes={"step": self.progress.step, "figures": figures},
            files={FILES_SEEN: self._files_seen},
        )

    def _steps(
        self, feed: EncodedBatches, first: int, last: int, *, retain: tuple[int, ...]
    ) -> Iterator[tuple[StepResult, float]]:
        train = self.recipe.train
        batches = feed.batches(first * train.accumulate, last * train.accumulate, batch=train.batch)
        for step in range(first, last):
            begun = time.monotonic()
            rows = list(islice(batches, train.accumulate))
            waited = time.monotonic() - begun
            outcome = take_step(
                self.encoder,
                feed.encoders,
                rows,
                self.optimizer,
                train,
                seed=seed_from(self.recipe.seed, "step", step),
                retain=retain,
                scaler=self.scaler,
                clip_norm=self.recipe.optim.clip_norm,
                answers=self.answers,
                teachers=self.teachers,
            )
            del rows  # before the next batch is read: there is memory for one
            yield outcome, waited

    def _kept_chunks(self, out: Path, feed: EncodedBatches, first: int) -> tuple[int, ...]:
        """How many chunks' graphs are kept in this phase; what was measured holds for the run when it is resumed."""
        train, phase = self.recipe.train, str(self.learning.border_before(first))
        if phase not in self.progress.kept_chunks:
            kept: tuple[int, ...] = (0, 0)
            if train.graph_memory_gb:
                (batch,) = feed.batches(first * train.accumulate, first * train.accumulate + 1, batch=train.batch)
                kept = plan_graph_budget(
                    feed.encoders,
                    inputs_of(batch, answers=self.answers),
                    chunk_size=train.chunk,
                    graph_memory_gb=train.graph_memory_gb,
                    autocast=PRECISIONS[train.precision],
                ).keep
            self.progress = replace(self.progress, kept_chunks=self.progress.kept_chunks | {phase: kept})
            self.state.save(out / STATE_FILE, self.progress)
        return self.progress.kept_chunks[phase]

    @cached_property
    def _files_seen(self) -> str:
        # It reads every file: once a run.
        return files_seen_csv(self.entries, before=self.learnt_before.files)

    def _feed(self, entries: Sequence[TrainingExample], step: int, *, judging: bool = False) -> EncodedBatches:
        sides = {"visual": self.recipe.visual, "text": self.recipe.text}
        frozen = tuple(side for side, config in sides.items() if config.at(step) != "all")
        return self._feed_of(self.encoder, entries, keeps=frozen if self.recipe.data.cache else (), judging=judging)

    def _teachers(self) -> Teachers:
        feeds = []
        for name in self.recipe.distillation.teachers:
            encoder = zoo.load_model(name, device=str(self.device)).encoder.requires_grad_(False)
            if encoder.text_depends_on_video:
                raise ConfigError(
                    f"distillation.teachers has {name}, whose sentences depend on the video; take another"
                )
            feeds.append(self._feed_of(encoder, self.entries, keeps=("visual", "text"), judging=True))
        return Teachers(feeds, share=self.recipe.distillation.weight)

    def _feed_of(
        self, encoder: DualEncoder, entries: Sequence[TrainingExample], *, keeps: tuple[str, ...], judging: bool
    ) -> EncodedBatches:
        return EncodedBatches(
            encoder,
            entries,
            self.recipe.data,
            chunk=self.recipe.train.chunk,
            seed=self.recipe.seed,
            keeps=keeps,
            unreadable_files=self.unreadable_files,
            cache=self.cache,
            watch=self.watch,
            judging=judging,
            precision="fp32" if judging else self.recipe.train.precision,
        )


def _answers(entries: Sequence[TrainingExample]) -> tuple[str, ...]:
    """What could be said of a clip: the one sentence of each label."""
    said: dict[str, str] = {}
    for entry in entries:
        if entry.label is None or len(entry.sentences) > 1:
            seen = "captions" if entry.label is None else f"{len(entry.sentences)} sentences for {entry.label!r}"
            raise ConfigError(
                f"train.loss is 'cross_entropy', which takes one sentence a label; {entry.file} has {seen}: give "
                "data.sources labels and prompts = 'bare', or take train.loss = 'info_nce'"
            )
        said[entry.label] = entry.sentences[0]
    return tuple(said[label] for label in sorted(said))
