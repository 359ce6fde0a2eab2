"""Options, notes, progress bars and tables that several commands share."""

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer
from rich.console import Console, Group
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from clipact.errors import UsageError

if TYPE_CHECKING:
    from clipact.classify.prediction import Prediction
    from clipact.data.protocol import Protocol

Videos = Annotated[
    list[str],
    typer.Argument(
        metavar="VIDEO",
        help="Files, folders of them, patterns, @FILE (a list, one a line); a folder of numbered pictures, "
        "- (standard input), http://..., rtsp://... or /dev/video0 (with --to).",
    ),
]
"""The argument of every command that takes several videos."""

_NAMED = 5  # labels in a sentence

MACHINE = "How it runs"
"""The panel of the options that change how fast an answer comes, and not the answer."""

ModelName = Annotated[
    str, typer.Option("--model", "-m", envvar="CLIPACT_MODEL", help="mini, a folder, or open_clip:ARCH/TAG.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel=MACHINE)]
PrecisionOption = Annotated[
    str,
    typer.Option(help="fp32; bf16: nearly the same, twice as fast; auto: bf16 where as good.", rich_help_panel=MACHINE),
]
"""Options of every command that has a model look, and where it may look in 16 bits."""

ProtocolArgument = Annotated[str, typer.Argument(metavar="PROTOCOL|MANIFEST", help="A protocol, or a CSV table.")]
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="The folder that holds the data.  [default: a table's own, or here]")
]
AllowMismatch = Annotated[
    bool, typer.Option("--allow-mismatch", help="Take data that are not the protocol's; mark it.")
]
"""Options of every command that is carried out under a protocol."""

Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on where this command was stopped or killed: the same --out, the same result."),
]
"""The one rule of every command whose work may be stopped: what is done is kept, and --resume goes on from there."""

Workers = Annotated[
    int | None,
    typer.Option(
        min=1, show_default="one a core", help="Threads that decode and encode videos.", rich_help_panel=MACHINE
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        show_default="the cores shared out; 1 on a busy machine, and with --out",
        help="Threads of the tensor library, for each worker.",
        rich_help_panel=MACHINE,
    ),
]
"""Options of every command that embeds many videos."""

RunFolder = Annotated[
    Path | None, typer.Option("--out", "-o", help="The run's folder.  [default: runs/ and the recipe's name]")
]
Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="Log for TensorBoard, too.")]
"""Options of every command that carries out a recipe."""


def index_folder(labels: Sequence[str]) -> Path | None:
    """The folder that `index:DIR` names; None when labels are meant. UsageError when both are."""
    named = [value.removeprefix("index:") for value in labels if value.startswith("index:")]
    if named and len(labels) > 1:
        raise UsageError(
            f"--labels takes one index and nothing beside it; add labels to {named[0]} by clipact index add"
        )
    return Path(named[0]).expanduser() if named else None


def find_protocol(protocol_or_table: str, data: Path | None, *, split: str = "all") -> "tuple[Protocol, Path]":
    """The protocol by its name or file, or that of a CSV table of one's own, and the folder of its data."""
    from clipact.data.protocol import load_protocol
    from clipact.evaluate import manifest_protocol

    if protocol_or_table.endswith(".csv"):
        return manifest_protocol(protocol_or_table, split=split), data or Path(protocol_or_table).parent
    if split != "all":
        raise UsageError("--split is for tables; a protocol names its own")
    return load_protocol(protocol_or_table), data or Path()


T = TypeVar("T")
_BAR_CELLS = 24
_PATIENCE_SECONDS = 2.0
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def note(message: str, *, kind: Literal["note", "warning", "error"] = "note") -> None:
    """Print one line for the person, on stderr."""
    style = {"note": "dim", "warning": "yellow", "error": "bold red"}[kind]
    console = Console(stderr=True, highlight=False)
    console.print(Text.assemble((f"{kind}: ", style), message), soft_wrap=True)


def tell_absent_labels(absent: Sequence[str], count: int) -> str:
    """The sentence about labels that are chosen from and of which there is no sample."""
    more = f" and {len(absent) - _NAMED:,} more" if len(absent) > _NAMED else ""
    return f"{len(absent):,} of {count:,} labels have no sample: {', '.join(absent[:_NAMED])}{more}"


def track(items: Iterable[T], *, total: int | None, what: str, prints: bool = False) -> Iterator[T]:
    """The items, with a progress bar on stderr when there are several and a person is watching.

    It tells the time that is left; with no total, the time that has gone. Where each item `prints` something, the bar
    is off the screen meanwhile: what is printed goes where it belongs, whole.
    """
    if (total is not None and total < 2) or not sys.stderr.isatty():
        yield from items
        return
    with _SCREEN.bar(what, total) as (bars, task):
        for item in items:
            if prints:
                bars.stop()
            yield item
            bars.advance(task)
            if prints:
                bars.start()


def show_video_progress(items: Iterable[T], total: int | None, description: str, /) -> Iterator[T]:
    """Return the items with a bar below the others, once they have lasted two seconds: what is done inside a video."""
    if not sys.stderr.isatty():
        yield from items
        return
    begun = time.monotonic()
    with ExitStack() as until_done:
        bars, task = None, TaskID(0)
        for count, item in enumerate(items, start=1):
            yield item
            if bars is None and time.monotonic() - begun > _PATIENCE_SECONDS:
                bars, task = until_done.enter_context(_SCREEN.bar(description, total))
            if bars is not None:
                bars.update(task, completed=count)


class _Screen:
    """The bars that are drawn: one block for all of a process, whichever threads they come from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bars: Progress | None = None
        self._users = 0

    @contextmanager
    def bar(self, what: str, total: int | None) -> Iterator[tuple[Progress, TaskID]]:
        """A bar of its own inside; the block is taken off the screen with its last bar."""
        with self._lock:
            if self._bars is None:
                columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Clock())
                self._bars = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
                self._bars.start()
            bars, self._users = self._bars, self._users + 1
        task = bars.add_task(escape(what), total=total)
        try:
            yield bars, task
        finally:
            bars.remove_task(task)
            with self._lock:
                self._users -= 1
                if not self._users:
                    bars.stop()
                    self._bars = None


class _Clock(ProgressColumn):
    """The time that is left; with no total, the time that has gone."""

    def __init__(self) -> None:
        super().__init__()
        self._left, self._gone = TimeRemainingColumn(), TimeElapsedColumn()

    def render(self, task: Task) -> Text:
        return (self._gone if task.total is None else self._left).render(task)


_SCREEN = _Screen()


def show_progress(items: Iterable[T], total: int | None, description: str, /) -> Iterator[T]:
    """Return the items with the bar of `track`: a `clipact.progress.ProgressBar`."""
    return track(items, total=total, what=description)


def bar(share: float, cells: int = _BAR_CELLS) -> str:
    """A share of 0..1 drawn with block characters, to an eighth of a cell."""
    eighths = round(max(0.0, min(1.0, share)) * cells * 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")


def prediction_table(prediction: "Prediction", *, top: int) -> Group:
    """What the clip is, its best labels with bar and score, and what was looked at."""
    facts = [f"{len(prediction.frames)} frames"]
    if prediction.duration_seconds is not None:
        facts.append(f"{prediction.duration_seconds:.1f} s")
    facts += [prediction.model, f"prompts {prediction.prompts}" if prediction.prompts else "supervised"]
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(overflow="fold", max_width=44)
    table.add_column(width=_BAR_CELLS, no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    fitting = prediction.accepted
    if fitting is None:
        fitting = () if prediction.none_of_these else (prediction.label,)
    for entry in prediction.top(top):
        style = "bold green" if entry.label in fitting else ""
        table.add_row(Text(entry.label, style=style), Text(bar(entry.score), style=style), f"{entry.score:.1%}")
    said = [Text(f" {line}", style=style) for line, style in _remarks(prediction)]
    said.append(Text(" " + " · ".join(facts), style="dim"))
    return Group(Text(prediction.video or "frames", style="bold"), table, *said)


def _remarks(prediction: "Prediction") -> Iterator[tuple[str, str]]:
    """How far the answer can be trusted, a line each, with its style."""
    trust, views, rest = prediction.trust, prediction.agreement, prediction.outside
    if prediction.accepted is not None:
        fitting = _listed(prediction.accepted)
        yield (f"fits by itself: {fitting}", "") if fitting else ("none of these fits by itself", "bold yellow")
    if trust is not None:
        if trust.none_of_these:
            fitting = f"{1 - trust.false_rejection_rate:.0%} of clips that fit have {trust.threshold:.2f} or more"
            yield f"none of these: {trust.score} score {trust.in_set_score:.2f}, and {fitting}", "bold yellow"
        every = len(trust.label_set) == len(prediction.labels)
        could = f"all {len(trust.label_set)} labels" if every else _listed(trust.label_set)
        yield f"{trust.coverage:.0%} label set: {could}", ""
    if views is not None:
        mark = "" if 2 * views.agreeing > len(views.views) else "yellow"
        yield f"{views.agreeing} of {len(views.views)} views agree: {_listed(views.views)}", mark
    if rest is not None and rest.labels:
        how = f"estimated from a sample, ± {rest.error:.1%}" if rest.error else "all of them compared"
        yield f"{rest.labels:,} labels that were not retrieved hold {rest.share:.1%} ({how})", "dim"


def _listed(labels: Sequence[str], most: int = 8) -> str:
    return ", ".join(labels[:most]) + (f" and {len(labels) - most} more" if len(labels) > most else "")
