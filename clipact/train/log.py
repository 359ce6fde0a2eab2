"""Log of a run: a JSON object for each step in log.jsonl, and the same numbers for TensorBoard when asked.

A run that is resumed cuts off the lines of steps that it will do again, so that the log of a run that was killed reads
as if nothing had happened, but for the times.
"""

import ctypes
import gc
import json
import math
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from clipact.atomic_write import atomic_write
from clipact.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """Metrics of one step.

    step            steps done, this one counted
    scale           what multiplies cosines, None where none are
    learning_rate   the highest of any parameter group
    clips           in the batch, each counted once, however many texts it has
    seconds         that it took, `waited_seconds` of them for data
    memory_bytes    the most that was in use so far
    validation      metrics of the validation sets after this step, if it was validated
    best            whether these are the best so far
    saved           whether the run can be resumed from here
    """

    step: int
    loss: float
    scale: float | None
    learning_rate: float
    gradient_norm: float
    clips: int
    seconds: float
    waited_seconds: float
    memory_bytes: int
    validation: dict[str, float] = field(default_factory=dict)
    best: bool = False
    saved: bool = False

    def line(self) -> dict[str, Any]:
        """Return the log's line of it."""
        return {
            "step": self.step,
            "loss": self.loss,
            **({} if self.scale is None else {"scale": self.scale}),
            "rate": self.learning_rate,
            "gradient_norm": self.gradient_norm,
            "samples_per_second": self.clips / self.seconds,
            "waited": self.waited_seconds / self.seconds,
            "memory_gb": self.memory_bytes / 1e9,
            **self.validation,
        }


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that was in use so far: the device's, or the process's own on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory_bytes` begin anew, from what is in use now; where a system does not do that, nothing."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError, AttributeError):
        # glibc keeps what was freed: 0.4 GB after an I3D learnt, which whatever comes next would seem to take
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # Linux: proc(5)


def memory_bytes(device: torch.device) -> int:
    """What is in use now: of the device, or by the process on a CPU (where only its peak is known, that)."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    status = Path("/proc/self/statm")
    if not status.exists():
        return peak_memory_bytes(device)
    return int(status.read_text().split()[1]) * resource.getpagesize()


class Log:
    """The log file of a run in `folder`, going on after `step` steps; use it in a with statement."""

    def __init__(self, folder: Path, *, step: int, tensorboard: bool = False) -> None:
        self.path = folder / "log.jsonl"
        with _disk_errors_named(self.path):
            _cut_after(self.path, step)
        # The lines that TensorBoard showed of steps that will be done again are hidden.
        self._board: Any = board_writer()(str(folder / "tensorboard"), purge_step=step + 1) if tensorboard else None

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()

    def write(self, step: int, **facts: Any) -> None:
        """Put down what is known of a step; numbers go to TensorBoard, too. Infinity is null (fp16 overflows)."""
        facts = {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in facts.items()}
        with _disk_errors_named(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **facts}) + "\n")
        if self._board is not None:
            for name, value in facts.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(name, value, step)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, in order; a last line that was cut off by a kill is left out."""
    lines = []
    for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def _cut_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [line for line in read_log(path.parent) if line["step"] <= step]
    with atomic_write(path) as file:
        file.write("".join(json.dumps(line) + "\n" for line in kept).encode())


def board_writer() -> Any:
    """TensorBoard's SummaryWriter; TrainingError, with what to install, when there is none."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError("TensorBoard is not installed: pip install 'clipact[tensorboard]'") from error
    return SummaryWriter


@contextmanager
def _disk_errors_named(path: Path) -> Iterator[None]:
    """Inside, a disk that refuses is a TrainingError."""
    try:
        yield
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror or error}") from error
