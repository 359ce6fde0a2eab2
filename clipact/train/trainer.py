"""Training loop of any recipe: start, step, log, validate, save, stop and resume.

    OUT/state.safetensors   state of the run; written every few minutes
    OUT/log.jsonl           a line a step
    OUT/best, OUT/last      models: of the step with the best validation metric, and of the last step

A step depends on the recipe, the data and the step's number alone. So a run that was killed and resumed gives the
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
from clipact.train.state import RunProgress, RunState

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Keep freed memory in this process for the next step, on Linux with glibc; elsewhere nothing is changed.

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
    """Outcome of one optimiser step.

    loss           the batch's loss
    gradient_norm  before clipping
    clips          how many there were in the batch
    scale          what multiplies cosines after the step, None where none are
    """

    loss: float
    gradient_norm: float
    clips: int
    scale: float | None = None


class Trainer(ABC):
    """Training loop over a recipe's model and data.

    examples          the training data
    unreadable_files  files that could not be read so far, with their causes
    stopping          set it to have the run saved and left after the current step

    Args:
        recipe: What every recipe says.
        model: The module that holds all weights.
        names: The parameters that are trained in some step.
        examples: The training data.
        validate_every: Steps between two validations; 0 validates after the last step alone.
        device: Where the model is.
    """

    def __init__(
        self,
        recipe: BaseRecipe,
        model: nn.Module,
        names: tuple[str, ...],
        *,
        examples: Sequence[TrainingExample],
        validate_every: int,
        device: torch.device,
    ) -> None:
        if recipe.train.precision == "fp16" and device.type != "cuda":
            raise ConfigError(f"train.precision is 'fp16', which is for CUDA; on {device.type} take 'bf16' or 'fp32'")
        if device.type == "cpu":
            keep_freed_memory()
        self.examples, self.device = tuple(examples), device
        self._base_recipe, self._validate_every = recipe, validate_every
        self.optimizer = make_optimizer(model, names, recipe.optim)
        decay, alpha = recipe.optim.ema_decay, recipe.optim.wise_ft_alpha
        self.ema = None if decay is None else EMA(model, names, decay=decay)
        self.scaler = torch.amp.GradScaler(device.type) if recipe.train.precision == "fp16" else None
        self.initial_weights = InitialWeights(model, names, alpha=alpha) if alpha else None
        copies = {"ema": self.ema, "initial_weights": self.initial_weights}
        self.state = RunState(
            model,
            self.optimizer,
            names,
            copies={name: copy.tensors for name, copy in copies.items() if copy is not None},
            scaler=self.scaler,
        )
        self.run_progress = RunProgress()
        self.unreadable_files: dict[str, str] = {}
        self.stopping = False

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""
        return self._base_recipe.train.count_steps(len(self.examples))

    @property
    @abstractmethod
    def phases(self) -> list[tuple[int, int]]:
        """First step and end of each phase, in which the same parameters are trained."""

    @abstractmethod
    def run_steps(self, out: Path, first: int, last: int) -> Iterator[tuple[StepResult, float]]:
        """Yield the result of each step of a phase as it is taken, and the seconds that it waited for data."""

    @abstractmethod
    def validate(self, out: Path) -> dict[str, float]:
        """Return the validation metrics; of the one that `monitored` returns, higher is better.

        The model is in evaluation mode, with the moving average of its weights if one is kept.
        """

    @abstractmethod
    def monitored(self, metrics: dict[str, float]) -> float | None:
        """Return the metric whose highest value marks the best step; None without validation sets."""

    @abstractmethod
    def set_trainable(self, *, step: int) -> None:
        """Set which parameters take a gradient and which modules are in training mode in this step."""

    @abstractmethod
    def save_model(self, folder: Path, metrics: dict[str, float]) -> None:
        """Write the model, as it is now, as a folder."""

    def train(self, out: Path, *, resume: bool = False, tensorboard: bool = False) -> Iterator[StepMetrics]:
        """Yield the metrics of each step as it is done; in the end OUT/last is there, and OUT/best with validation."""
        if tensorboard:
            board_writer()  # raises before anything is begun where TensorBoard is missing
        self._start(out, resume=resume)
        with Log(out, step=self.run_progress.step, tensorboard=tensorboard) as log:
            for first, last in self.phases:
                if self.run_progress.step < last and not self.stopping:
                    yield from self._train_phase(out, log, first, last)
        if not self.stopping:
            with self._evaluation_weights():
                self.save_model(out / "last", {})

    def _start(self, out: Path, *, resume: bool) -> None:
        if resume:
            for name in ("best", "last", STATE_FILE):
                tidy(out / name)
            self.run_progress = self.state.load(out / STATE_FILE, recipe=self._base_recipe)
            if self.run_progress.data != self._data_key:
                raise UsageError(
                    f"the manifests name other files or sentences than when {out} was begun; put them back, or take "
                    "another --out"
                )
            self.unreadable_files.update(self.run_progress.unreadable_files)
        elif (out / STATE_FILE).exists():
            raise UsageError(f"{out} holds a run already: --resume goes on with it, another --out begins anew")
        else:
            try:
                out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"{out} cannot be made: {error.strerror}; take another --out") from error
            self.run_progress = RunProgress(recipe=to_table(self._base_recipe), data=self._data_key)
            self.state.save(out / STATE_FILE, self.run_progress)  # so that --resume is right from here on

    def _train_phase(self, out: Path, log: Log, first: int, last: int) -> Iterator[StepMetrics]:
        train, start = self._base_recipe.train, max(first, self.run_progress.step)
        if self.initial_weights is not None and start == first:
            with self._ema_weights():
                self.initial_weights.capture()
        results = self.run_steps(out, start, last)
        saved = time.monotonic()
        for step in range(start, last):
            begun = time.monotonic()
            rate = set_rate(self.optimizer, step=step - first, steps=last - first, config=self._base_recipe.optim)
            result, waited = next(results)
            if self.ema is not None:
                self.ema.update(step=step)
            self.run_progress = replace(self.run_progress, step=step + 1, unreadable_files=dict(self.unreadable_files))
            metrics = StepMetrics(
                step=step + 1,
                loss=result.loss,
                scale=result.scale,
                learning_rate=rate,
                gradient_norm=result.gradient_norm,
                clips=result.clips,
                seconds=time.monotonic() - begun,
                waited_seconds=waited,
                memory_bytes=peak_memory_bytes(self.device),
            )
            if step + 1 == self.steps or (self._validate_every and (step + 1) % self._validate_every == 0):
                metrics = self._validate(out, metrics)
            # First the log: lines of steps that are done again are cut off, but a line that was never written is lost.
            log.write(**metrics.line())
            if self.stopping or step + 1 == last or time.monotonic() - saved >= 60 * train.save_minutes:
                self.state.save(out / STATE_FILE, self.run_progress)
                saved, metrics = time.monotonic(), replace(metrics, saved=True)
            yield metrics
            if metrics.saved and self.stopping:
                return

    def _validate(self, out: Path, metrics: StepMetrics) -> StepMetrics:
        """The step's metrics with those of validation; the model is saved as OUT/best when it is the best so far."""
        with self._evaluation_weights():
            found = self.validate(out)
            value = self.monitored(found)
            best = value is not None and (self.run_progress.best is None or value > self.run_progress.best)
            if best:
                self.run_progress = replace(self.run_progress, best=value, best_step=metrics.step)
                self.save_model(out / "best", found)
        self.set_trainable(step=metrics.step - 1)
        return replace(metrics, validation=found, best=best)

    @contextmanager
    def _evaluation_weights(self) -> Iterator[None]:
        """Inside, the model is in evaluation mode, with the weights that are validated and saved."""
        self.state.model.eval()
        with ExitStack() as stack:
            stack.enter_context(self._ema_weights())
            if self.initial_weights is not None and self.run_progress.step > self.phases[-1][0]:
                stack.enter_context(self.initial_weights.applied())
            yield

    def _ema_weights(self) -> AbstractContextManager[None]:
        return nullcontext() if self.ema is None else self.ema.applied()

    @cached_property
    def _data_key(self) -> str:
        examples = ((e.name, e.frames, e.clips, e.sentences, e.visual_id, e.label_id) for e in self.examples)
        return content_key("entries 1", *map(repr, examples))


def optimizer_step(
    optimizer: torch.optim.Optimizer, *, loss: float, scaler: torch.amp.GradScaler | None, clip_norm: float | None
) -> float:
    """Take a step of the optimiser along the gradient that is there, and return its norm before clipping.

    Raises:
        TrainingError: The loss or the norm is not finite, and no step was taken; a scaler looks after the norm itself.
    """
    if scaler is not None:
        scaler.unscale_(optimizer)
    trained = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.clip_grad_norm_(trained, float("inf") if clip_norm is None else clip_norm).item()
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
