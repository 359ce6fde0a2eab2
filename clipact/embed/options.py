"""How the engine carries out its work, and how many workers and threads it takes."""

import os
from dataclasses import dataclass
from pathlib import Path

from clipact.cache import Cache
from clipact.errors import UsageError
from clipact.progress import ProgressBar, no_progress


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """Say how rows are embedded: nothing here changes an embedding by more than rounding.

    workers             threads that decode, and on a CPU encode; by default one a core
    threads             of the tensor library, for each worker; by default the cores are shared out, and one each where
                        the machine is busy and where there is a journal
    frames_at_once      encoded together; by default 8 on a CPU, 256 elsewhere
    cache               where features are looked for and kept; None: nowhere
    journal             a file that makes the run safe from being killed
    resume              whether a journal that is there is taken up, or begun anew
    time_limit_seconds  decodes each video in a process of its own, which is ended when the time is up
    progress            shows the rows as they are done
    video_progress      shows what lasts inside a video; called by the workers, several at once
    """

    workers: int | None = None
    threads: int | None = None
    frames_at_once: int | None = None
    cache: Cache | None = None
    journal: Path | None = None
    resume: bool = False
    time_limit_seconds: float | None = None
    progress: ProgressBar = no_progress
    video_progress: ProgressBar = no_progress

    def __post_init__(self) -> None:
        for name in ("workers", "threads", "frames_at_once"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"{name} is {value}; it is at least 1")

    def workers_for(self, units: int | None) -> int:
        """Return how many workers share `units` (None: who knows) pieces of work."""
        asked = self.workers or cores()
        return asked if units is None else max(1, min(asked, units))

    def threads_for(self, workers: int) -> int:
        """Return how many threads each of so many workers computes with.

        Threads that share one computation wait for the slowest: where other programs hold the cores, two take three
        times as long as one (12 clips of mini at a load of 19 on two cores: 201 s, and 60).

        How many there are decides how sums are rounded. With a journal it must hang neither on the load nor on how
        much is left to do, or what is resumed would not come out bit for bit as without the stop.
        """
        if self.threads is not None:
            return self.threads
        return 1 if self.journal is not None or _is_busy() else max(1, cores() // workers)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_busy() -> bool:
    """Whether twice as many programs as there are cores were running in the last minute: one of ours may be there."""
    try:
        return os.getloadavg()[0] > 2 * cores()
    except (OSError, AttributeError):  # Windows has none
        return False
