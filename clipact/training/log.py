"""What a run writes down as it goes: a JSON object a line, and the same numbers for TensorBoard when asked.

A line belongs to a step. A run that is resumed cuts off the lines of steps that it will do again, so that the log of a
run that was killed reads as if nothing had happened, but for the times.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clipact.errors import TrainingError
from clipact.replacing import replacing


class Log:
    """The log file of a run in `folder`, going on after `step` steps; use it in a with statement."""

    def __init__(self, folder: Path, *, step: int, tensorboard: bool = False) -> None:
        self.path = folder / "log.jsonl"
        with _said(self.path):
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
        with _said(self.path), self.path.open("a", encoding="utf-8") as file:
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
    with replacing(path) as file:
        file.write("".join(json.dumps(line) + "\n" for line in kept).encode())


def board_writer() -> Any:
    """TensorBoard's SummaryWriter; TrainingError, with what to install, when there is none."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError("TensorBoard is not installed: pip install 'clipact[tensorboard]'") from error
    return SummaryWriter


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """Inside, a disk that refuses is a TrainingError."""
    try:
        yield
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror or error}") from error
