"""A run: from a recipe to a trained model, step by step, stopped and resumed without a trace.

    OUT/state.safetensors   where the run stands; written every few minutes
    OUT/log.jsonl           a line a step
    OUT/best, OUT/last      models: of the best judged step, and of the last one

What a step does hangs on the recipe, the data and the step's number. So a run that was killed and resumed gives the
weights of one that was not, bit for bit.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path

import torch

from clipact import checkpoint, towers
from clipact.config import to_table
from clipact.data.order import seed_from
from clipact.data.sources import Entry, read_sources
from clipact.errors import ConfigError, UsageError
from clipact.model_config import FILES_SEEN
from clipact.store import Store, content_key
from clipact.training.average import WeightAverage
from clipact.training.feed import Feed
from clipact.training.frozen import Watch, files_seen
from clipact.training.judge import figure_names, judge
from clipact.training.learning import Learning
from clipact.training.log import Log, board_writer
from clipact.training.optim import make_optimizer, set_rate
from clipact.training.recipe import Recipe
from clipact.training.report import Report, peak_memory_bytes
from clipact.training.retention import plan_retention
from clipact.training.start import learnt_before, make_encoder
from clipact.training.state import Progress, RunState
from clipact.training.step import PRECISIONS, inputs_of, take_step

STATE = "state.safetensors"


class Run:
    """A recipe, with its model and data at hand."""

    def __init__(self, recipe: Recipe, *, data: Path, device: torch.device, store: Store, watch: Watch) -> None:
        self.recipe, self.device, self.store, self.watch = recipe, device, store, watch
        self.learnt_before = learnt_before(recipe.start)
        self.encoder = make_encoder(recipe.start, seed=recipe.seed).to(device)
        if self.encoder.text_depends_on_video:
            raise ConfigError(
                "with X-CLIP a sentence's features depend on the video, so that neither side can be encoded by itself, "
                "as training does; begin from a model whose text stands alone, or give it another start.visual"
            )
        if recipe.train.loss == "sigmoid" and self.encoder.bias is None:
            raise ConfigError("train.loss is 'sigmoid', but the model has no bias; set start.bias, such as -10")
        if recipe.train.precision == "fp16" and device.type != "cuda":
            raise ConfigError(f"train.precision is 'fp16', which is for CUDA; on {device.type} take 'bf16' or 'fp32'")
        for tower in (self.encoder.visual, self.encoder.text):
            towers.describe(tower)  # what cannot be saved is said before it is trained
        self.entries = read_sources(recipe.data.sources, data)
        self.judged = {one.name: read_sources([one.source], data) for one in recipe.judge.sets}
        recipe.judge.check_best([f"{name}.{x}" for name, held in self.judged.items() for x in figure_names(held)])
        self.learning = Learning(visual=recipe.visual, text=recipe.text)
        self.names = self.learning.names_ever(self.encoder)
        self.optimizer = make_optimizer(self.encoder, self.names, recipe.optim)
        decay = recipe.optim.average_decay
        self.average = None if decay is None else WeightAverage(self.encoder, self.names, decay=decay)
        self.scaler = torch.amp.GradScaler(device.type) if recipe.train.precision == "fp16" else None
        self.state = RunState(self.encoder, self.optimizer, self.names, average=self.average, scaler=self.scaler)
        self.progress = Progress()
        self.broken: dict[str, str] = {}
        self.stopping = False

    @property
    def steps(self) -> int:
        """How many there are in all."""
        train = self.recipe.train
        return train.steps or max(1, round((train.epochs or 0) * len(self.entries) / (train.batch * train.accumulate)))

    def feed(self, step: int) -> Feed:
        """What the model is fed from this step on, as long as the same things learn; sets what learns."""
        self.learning.apply(self.encoder, step=step)
        return self._feed(self.entries, step)

    def train(self, out: Path, *, resume: bool = False, tensorboard: bool = False) -> Iterator[Report]:
        """A report a step, as it is done. At the end OUT/last is there, and OUT/best when sets are judged.

        Set `stopping` to have the run saved and left after the step at hand.
        """
        if tensorboard:
            board_writer()  # what is missing is said before anything is begun
        self._begin(out, resume=resume)
        with Log(out, step=self.progress.step, tensorboard=tensorboard) as log:
            for first, last in self.phases:
                if self.progress.step < last and not self.stopping:
                    yield from self._phase(out, log, max(first, self.progress.step), last)
        if not self.stopping:
            with self._judged_weights():
                self._save_model(out / "last")

    @property
    def phases(self) -> list[tuple[int, int]]:
        """First and last step of each stretch in which the same things learn."""
        return list(pairwise([*(border for border in self.learning.borders if border < self.steps), self.steps]))

    def _begin(self, out: Path, *, resume: bool) -> None:
        table = json.loads(json.dumps(to_table(self.recipe)))
        if resume:
            for name in ("best", "last", STATE):
                checkpoint.tidy(out / name)
            self.progress = self.state.load(out / STATE, recipe=table)
            if self.progress.data != self._data_key:
                raise UsageError(
                    f"the manifests name other files or sentences than when {out} was begun; put them back, or take "
                    "another --out"
                )
            self.broken.update(self.progress.broken)
        elif (out / STATE).exists():
            raise UsageError(f"{out} holds a run already: --resume goes on with it, another --out begins anew")
        else:
            try:
                out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"{out} cannot be made: {error.strerror}; take another --out") from error
            self.progress = Progress(recipe=table, data=self._data_key)
            self.state.save(out / STATE, self.progress)  # so that --resume is right from here on

    def _phase(self, out: Path, log: Log, first: int, last: int) -> Iterator[Report]:
        train, judged_every = self.recipe.train, self.recipe.judge.every
        feed = self.feed(first)
        judged = {name: self._feed(entries, first, judging=True) for name, entries in self.judged.items()}
        kept = self._kept_chunks(out, feed, first)
        batches = feed.batches(first * train.accumulate, last * train.accumulate, batch=train.batch)
        saved = time.monotonic()
        for step in range(first, last):
            begun = time.monotonic()
            rows = list(islice(batches, train.accumulate))
            waited = time.monotonic() - begun
            rate = set_rate(self.optimizer, step=step, steps=self.steps, config=self.recipe.optim)
            outcome = take_step(
                self.encoder,
                feed.encoders,
                rows,
                self.optimizer,
                train,
                seed=seed_from(self.recipe.seed, "step", step),
                retain=kept,
                scaler=self.scaler,
                clip_norm=self.recipe.optim.clip_norm,
            )
            del rows  # before the next batch is read: there is memory for one
            if self.average is not None:
                self.average.update(step=step)
            self.progress = replace(self.progress, step=step + 1, broken=dict(self.broken))
            report = Report(
                step=step + 1,
                loss=outcome.loss,
                scale=self.encoder.scale.item(),
                rate=rate,
                gradient_norm=outcome.gradient_norm,
                rows=outcome.rows,
                seconds=time.monotonic() - begun,
                waited_seconds=waited,
                memory_bytes=peak_memory_bytes(self.device),
            )
            if step + 1 == self.steps or (judged_every and (step + 1) % judged_every == 0):
                report = self._judge(out, report, judged)
            # First the log: lines of steps that are done again are cut off, but a line that was never written is lost.
            log.write(**report.line())
            if self.stopping or step + 1 == last or time.monotonic() - saved >= 60 * train.save_minutes:
                self.state.save(out / STATE, self.progress)
                saved, report = time.monotonic(), replace(report, saved=True)
            yield report
            if report.saved and self.stopping:
                return

    def _kept_chunks(self, out: Path, feed: Feed, first: int) -> tuple[int, ...]:
        """How many chunks' graphs are kept in this phase; what was measured holds for the run when it is resumed."""
        train, phase = self.recipe.train, str(self.learning.border_before(first))
        if phase not in self.progress.kept_chunks:
            kept: tuple[int, ...] = (0, 0)
            if train.memory_gb:
                (batch,) = feed.batches(first * train.accumulate, first * train.accumulate + 1, batch=train.batch)
                kept = plan_retention(
                    feed.encoders,
                    inputs_of(batch),
                    chunk_size=train.chunk,
                    memory_gb=train.memory_gb,
                    autocast=PRECISIONS[train.precision],
                ).keep
            self.progress = replace(self.progress, kept_chunks=self.progress.kept_chunks | {phase: kept})
            self.state.save(out / STATE, self.progress)
        return self.progress.kept_chunks[phase]

    def _judge(self, out: Path, report: Report, feeds: Mapping[str, Feed]) -> Report:
        """The report with its figures; the model is put into OUT/best when they are the best so far."""
        with self._judged_weights():
            figures = {
                f"{name}.{figure}": value for name, feed in feeds.items() for figure, value in judge(feed).items()
            }
            value = self.recipe.judge.pick(figures)
            best = value is not None and (self.progress.best is None or value > self.progress.best)
            if best:
                self.progress = replace(self.progress, best=value, best_step=report.step)
                self._save_model(out / "best", figures)
        self.learning.apply(self.encoder, step=report.step - 1)
        return replace(report, figures=figures, best=best)

    @contextmanager
    def _judged_weights(self) -> Iterator[None]:
        """Inside, the model is in evaluation mode, with the mean of its weights if one is kept."""
        self.encoder.eval()
        with self.average.applied() if self.average is not None else nullcontext():
            yield

    def _save_model(self, folder: Path, figures: dict[str, float] | None = None) -> None:
        recipe = self.recipe
        checkpoint.save(
            self.encoder,
            folder,
            name=recipe.name,
            trained_on=tuple(dict.fromkeys([*self.learnt_before.trained_on, *recipe.trained_on])),
            license=recipe.license,
            dtype=torch.float16 if recipe.train.save_as == "fp16" else None,
            notes={"step": self.progress.step, "figures": figures or {}},
            files={FILES_SEEN: self._files_seen},
        )

    @cached_property
    def _files_seen(self) -> str:
        # It reads every file: once a run.
        return files_seen(self.entries, before=self.learnt_before.files)

    @cached_property
    def _data_key(self) -> str:
        entries = ((e.name, e.frames, e.clips, e.sentences, e.visual_id, e.label_id) for e in self.entries)
        return content_key("entries 1", *map(repr, entries))

    def _feed(self, entries: Sequence[Entry], step: int, *, judging: bool = False) -> Feed:
        sides = {"visual": self.recipe.visual, "text": self.recipe.text}
        frozen = tuple(side for side, config in sides.items() if config.at(step) != "all")
        return Feed(
            self.encoder,
            entries,
            self.recipe.data,
            chunk=self.recipe.train.chunk,
            seed=self.recipe.seed,
            keeps=frozen if self.recipe.data.cache else (),
            broken=self.broken,
            store=self.store,
            watch=self.watch,
            judging=judging,
        )
