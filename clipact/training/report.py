"""What a step came to, as the log keeps it and a progress bar shows it."""

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a step came to.

    step            steps done, this one counted
    scale           what multiplies cosines, None where none are
    rate            the highest learning rate
    clips           seen, each counted once, whatever was said of it
    seconds         that it took, `waited_seconds` of them for data
    memory_bytes    the most that was in use so far
    figures         of the sets that were judged after it, if any
    best            whether these are the best so far
    saved           whether the run can be resumed from here
    """

    step: int
    loss: float
    scale: float | None
    rate: float
    gradient_norm: float
    clips: int
    seconds: float
    waited_seconds: float
    memory_bytes: int
    figures: dict[str, float] = field(default_factory=dict)
    best: bool = False
    saved: bool = False

    def line(self) -> dict[str, Any]:
        """What the log keeps of it."""
        return {
            "step": self.step,
            "loss": self.loss,
            **({} if self.scale is None else {"scale": self.scale}),
            "rate": self.rate,
            "gradient_norm": self.gradient_norm,
            "samples_per_second": self.clips / self.seconds,
            "waited": self.waited_seconds / self.seconds,
            "memory_gb": self.memory_bytes / 1e9,
            **self.figures,
        }


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that was in use so far: the device's, or the process's own on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def forget_peak_memory(device: torch.device) -> None:
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
