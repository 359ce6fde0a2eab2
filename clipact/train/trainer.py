"""The course of a run, whatever is learnt: begun, taken step by step, logged, judged, saved, stopped and resumed.

    OUT/state.safetensors   where the run stands; written every few minutes
    OUT/log.jsonl           a line a step
    OUT/best, OUT/last      models: of the best judged step, and of the last one

What a step does hangs on the recipe, the data and the step's number. So a run that was killed and resumed gives the
weights of one that was not, bit for bit.
"""

import ctypes
import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from clipact.atomic_write import tidy
from clipact.cache import content_key
from clipact.config import to_table
from clipact.data.sources import TrainingExample
from clipact.errors import ConfigError, TrainingError, UsageError
from clipact.train.averaging import EMA, InitialWeights
from clipact.train.log import Log, StepMetrics, board_writer, peak_memory_bytes
from clipact.train.optim import make_optimizer, set_rate
from clipact.train.recipe import BaseRecipe
from clipact.train.state import Progress, RunState

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Have this process keep it for the next step, on Linux with glibc; elsewhere nothing is changed.

    Otherwise each large tensor is mapped anew and given back, and the kernel clears every page of it: a seventh of a
    step of EfficientNet-Lite2 and MiniLM on two cores. The process keeps the most that it had in use at any time.
    """
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)


STATE_FILE = "state.safetensors"


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """The mean loss over a step's batches, the gradient's norm before it was cut, and how many clips were seen.

    `scale` is what multiplies cosines after it, None where none are.
    """

    loss: float
    gradient_norm: float
    clips: int
    scale: float | None = None


class Trainer(ABC):
    """A recipe with its model and data at hand; `names` are the parameters that ever learn.

    entries      what is learnt from
    judge_every  steps between two judgements; 0 judges after the last step alone
    broken       files that could not be read so far, with their causes
    stopping     set it to have the run saved and left after the step at hand
    """

    def __init__(
        self,
        recipe: BaseRecipe,
        model: nn.Module,
        names: tuple[str, ...],
        *,
        entries: Sequence[TrainingExample],
        judge_every: int,
        device: torch.device,
    ) -> None:
        if recipe.train.precision == "fp16" and device.type != "cuda":
            raise ConfigError(f"train.precision is 'fp16', which is for CUDA; on {device.type} take 'bf16' or 'fp32'")
        if device.type == "cpu":
            keep_freed_memory()
        self.entries, self.device, self._outline, self._judge_every = tuple(entries), device, recipe, judge_every
        self.optimizer = make_optimizer(model, names, recipe.optim)
        decay = recipe.optim.ema_decay
        self.average = None if decay is None else EMA(model, names, decay=decay)
        self.scaler = torch.amp.GradScaler(device.type) if recipe.train.precision == "fp16" else None
        share = recipe.optim.wise_ft_alpha
        self.beginning = InitialWeights(model, names, share=share) if share else None
        self.state = RunState(
            model, self.optimizer, names, average=self.average, beginning=self.beginning, scaler=self.scaler
        )
        self.progress = Progress()
        self.unreadable_files: dict[str, str] = {}
        self.stopping = False

    @property
    def steps(self) -> int:
        """How many there are in all."""
        return self._outline.train.count_steps(len(self.entries))

    @property
    @abstractmethod
    def phases(self) -> list[tuple[int, int]]:
        """First and last step of each stretch in which the same things learn."""

    @abstractmethod
    def take_steps(self, out: Path, first: int, last: int) -> Iterator[tuple[StepResult, float]]:
        """What each step of a phase came to, as it is taken, and the seconds that it waited for data."""

    @abstractmethod
    def figures(self, out: Path) -> dict[str, float]:
        """How good the model is; of the figure that `pick` picks, more is better.

        The model is in evaluation mode, with the mean of its weights if one is kept.
        """

    @abstractmethod
    def pick(self, figures: dict[str, float]) -> float | None:
        """The figure whose highest value marks the best step; None when nothing is judged."""

    @abstractmethod
    def set_learning(self, *, step: int) -> None:
        """Set what takes a gradient and which modules are in training mode, as this step wants it."""

    @abstractmethod
    def save_model(self, folder: Path, figures: dict[str, float]) -> None:
        """Write the model, as it is now, as a folder."""

    def train(self, out: Path, *, resume: bool = False, tensorboard: bool = False) -> Iterator[StepMetrics]:
        """A report a step, as it is done. At the end OUT/last is there, and OUT/best when sets are judged."""
        if tensorboard:
            board_writer()  # what is missing is said before anything is begun
        self._begin(out, resume=resume)
        with Log(out, step=self.progress.step, tensorboard=tensorboard) as log:
            for first, last in self.phases:
                if self.progress.step < last and not self.stopping:
                    yield from self._phase(out, log, first, last)
        if not self.stopping:
            with self._judged_weights():
                self.save_model(out / "last", {})

    def _begin(self, out: Path, *, resume: bool) -> None:
        if resume:
            for name in ("best", "last", STATE_FILE):
                tidy(out / name)
            self.progress = self.state.load(out / STATE_FILE, recipe=self._outline)
            if self.progress.data != self._data_key:
                raise UsageError(
                    f"the manifests name other files or sentences than when {out} was begun; put them back, or take "
                    "another --out"
                )
            self.unreadable_files.update(self.progress.unreadable_files)
        elif (out / STATE_FILE).exists():
            raise UsageError(f"{out} holds a run already: --resume goes on with it, another --out begins anew")
        else:
            try:
                out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"{out} cannot be made: {error.strerror}; take another --out") from error
            self.progress = Progress(recipe=to_table(self._outline), data=self._data_key)
            self.state.save(out / STATE_FILE, self.progress)  # so that --resume is right from here on

    def _phase(self, out: Path, log: Log, first: int, last: int) -> Iterator[StepMetrics]:
        train, at = self._outline.train, max(first, self.progress.step)
        if self.beginning is not None and at == first:
            with self._mean_weights():
                self.beginning.remember()
        taken = self.take_steps(out, at, last)
        saved = time.monotonic()
        for step in range(at, last):
            begun = time.monotonic()
            rate = set_rate(self.optimizer, step=step - first, steps=last - first, config=self._outline.optim)
            outcome, waited = next(taken)
            if self.average is not None:
                self.average.update(step=step)
            self.progress = replace(self.progress, step=step + 1, unreadable_files=dict(self.unreadable_files))
            report = StepMetrics(
                step=step + 1,
                loss=outcome.loss,
                scale=outcome.scale,
                rate=rate,
                gradient_norm=outcome.gradient_norm,
                clips=outcome.clips,
                seconds=time.monotonic() - begun,
                waited_seconds=waited,
                memory_bytes=peak_memory_bytes(self.device),
            )
            if step + 1 == self.steps or (self._judge_every and (step + 1) % self._judge_every == 0):
                report = self._judge(out, report)
            # First the log: lines of steps that are done again are cut off, but a line that was never written is lost.
            log.write(**report.line())
            if self.stopping or step + 1 == last or time.monotonic() - saved >= 60 * train.save_minutes:
                self.state.save(out / STATE_FILE, self.progress)
                saved, report = time.monotonic(), replace(report, saved=True)
            yield report
            if report.saved and self.stopping:
                return

    def _judge(self, out: Path, report: StepMetrics) -> StepMetrics:
        """The report with its figures; the model is put into OUT/best when they are the best so far."""
        with self._judged_weights():
            figures = self.figures(out)
            value = self.pick(figures)
            best = value is not None and (self.progress.best is None or value > self.progress.best)
            if best:
                self.progress = replace(self.progress, best=value, best_step=report.step)
                self.save_model(out / "best", figures)
        self.set_learning(step=report.step - 1)
        return replace(report, figures=figures, best=best)

    @contextmanager
    def _judged_weights(self) -> Iterator[None]:
        """Inside, the model is in evaluation mode, with the weights that the recipe wants judged and saved."""
        self.state.model.eval()
        with ExitStack() as stack:
            stack.enter_context(self._mean_weights())
            if self.beginning is not None and self.progress.step > self.phases[-1][0]:
                stack.enter_context(self.beginning.applied())
            yield

    def _mean_weights(self) -> AbstractContextManager[None]:
        return nullcontext() if self.average is None else self.average.applied()

    @cached_property
    def _data_key(self) -> str:
        entries = ((e.name, e.frames, e.clips, e.sentences, e.visual_id, e.label_id) for e in self.entries)
        return content_key("entries 1", *map(repr, entries))


def optimizer_step(
    optimizer: torch.optim.Optimizer, *, loss: float, scaler: torch.amp.GradScaler | None, clip_norm: float | None
) -> float:
    """The norm of the gradient that is there, before it was cut to `clip_norm`, after a step of the optimiser along it.

    TrainingError, and no step, when the loss or the norm is not finite; where a scaler looks after the norm, it does.
    """
    if scaler is not None:
        scaler.unscale_(optimizer)
    learning = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.clip_grad_norm_(learning, float("inf") if clip_norm is None else clip_norm).item()
    if not math.isfinite(loss) or (scaler is None and not math.isfinite(norm)):
        raise TrainingError(
            f"the loss is {loss} and the gradient's norm {norm:g}: this step was not taken; lower optim.lr, "
            "set optim.clip_norm, or look at the data"
        )
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    return norm
