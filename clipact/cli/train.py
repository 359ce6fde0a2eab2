"""`clipact train`: train a model on a recipe and a folder of data."""

import json
import shlex
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from clipact.cli.terminal import Device, Resume, RunFolder, Tensorboard, note
from clipact.errors import UsageError

if TYPE_CHECKING:
    from clipact.train.dry_run import DryRun
    from clipact.train.log import StepMetrics
    from clipact.train.trainer import Trainer
    from clipact.train.verify_gradient import GradientCheck

_QUIET_SECONDS = 30  # between two lines where no one watches a bar


class _StoppedEncoding(KeyboardInterrupt):
    """A Ctrl-C where there is no step to wait for."""


class TrainScreen:
    """Progress bars on stderr, where it is a terminal; else a line now and then. Use it in a with statement."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False)
        self.watched = console.is_terminal
        self._encoding = self._unsaved = False
        self._task: TaskID | None = None  # of the run before, until the next begins
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console)
        # Beside the bar they would leave no room for it on 80 columns.
        self.facts = Text(style="dim", no_wrap=True, overflow="ellipsis")
        self._live = Live(Group(self.progress, self.facts), console=console, transient=True)

    def __enter__(self) -> "TrainScreen":
        if self.watched:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show_progress(self, items: Iterable[Any], total: int | None, description: str, /) -> Iterator[Any]:
        """Return the items, with a bar of their own: a `clipact.progress.ProgressBar`."""
        task, self._encoding = self.progress.add_task(description, total=total), True
        try:
            for item in items:
                yield item
                self.progress.advance(task)
        finally:
            self._encoding = False
            self.progress.remove_task(task)

    def follow(self, trainer: "Trainer", steps: Iterator["StepMetrics"]) -> None:
        """Train to the end, or to the first Ctrl-C."""
        if self._task is not None:
            self.progress.remove_task(self._task)
        task, printed = self.progress.add_task("training", total=trainer.steps), time.monotonic()
        self._task = task
        with self._interrupts(trainer):
            for metrics in steps:
                self._unsaved = not metrics.saved
                facts = _facts(metrics)
                self.progress.update(task, completed=metrics.step)
                self.facts.plain = facts
                if metrics.validation:
                    self.say(f"step {metrics.step}: {_validation(metrics)}")
                elif not self.watched and (
                    time.monotonic() - printed > _QUIET_SECONDS or metrics.step == trainer.steps
                ):
                    self.say(f"step {metrics.step} of {trainer.steps}: {facts}")
                    printed = time.monotonic()
        for path, cause in trainer.unreadable_files.items():
            self.say(f"left out: {path}: {cause}")

    @contextmanager
    def _interrupts(self, trainer: "Trainer") -> Iterator[None]:
        """Inside, the first Ctrl-C (or a termination) ends the run after its step, and a second one at once.

        While a frozen tower encodes, which may last, and all steps are saved, the first one ends it at once, too.
        """

        def stop(number: int, _: object) -> None:
            trainer.stopping = True
            signal.signal(number, before[signal.Signals(number)])
            if self._encoding and not self._unsaved:
                raise _StoppedEncoding
            self.say("saving after this step; once more to stop at once, and go on from the last checkpoint")

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        except _StoppedEncoding:
            self.say("stopped while encoding: what is encoded is kept")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self.progress.console.print(line, markup=False, soft_wrap=True)


def leave_if_stopped(trainer: "Trainer") -> None:
    """Exit with code 130 if the run was stopped, after a line on how to resume it."""
    if trainer.stopping:
        words = [word for word in sys.argv[1:] if word != "--resume"]
        note(
            f"stopped after step {trainer.run_progress.step}; go on with: {shlex.join(['clipact', *words, '--resume'])}"
        )
        raise typer.Exit(130)


def show_checks(checks: Mapping[int, "GradientCheck"]) -> None:
    """Print how far the cached gradient lies from plain autograd's, by the first step of each phase."""
    console = Console(stderr=True, highlight=False)
    for step, check in checks.items():
        table = Table("gradient of", "differs by", "bound", box=None)
        for name, seen in check.differences.items():
            table.add_row(name, f"{seen:.1e}", f"{check.bounds[name]:.0e}")
        if len(checks) > 1:
            console.print(f"from step {step} on")
        console.print(table)


def show_plan(plan: "DryRun", *, as_json: bool = False) -> None:
    """Print what a run would do."""
    if as_json:
        facts = asdict(plan) | {"steps_seconds": plan.steps_seconds, "run_seconds": plan.run_seconds}
        print(json.dumps(facts, indent=2))
        return
    table = Table(show_header=False, box=None, padding=(0, 1))
    for phase in plan.phases:
        if len(plan.phases) > 1:
            table.add_row("", f"steps {phase.first:,} to {phase.last - 1:,}", style="bold")
        for tower in phase.towers:
            kept = "; its features are encoded once and cached" if tower.cached else ""
            table.add_row(
                tower.name,
                f"{tower.trainable} is trained: {tower.trained_parameters:,} of {tower.parameters:,} parameters{kept}",
            )
            table.add_row("", f"{tower.chunks} chunks a batch, the graphs of {tower.retained_chunks} retained")
            table.add_row("", f"batch norm: {tower.batch_norm}")
        table.add_row("graphs", f"{_bytes(phase.graph_bytes)} at most at a time")
        table.add_row("a step", ", ".join(f"{seconds:.2f} s" for seconds in phase.step_seconds))
    if len(plan.phases) > 1:
        table.add_row("", "in all", style="bold")
    table.add_row("data", f"{plan.examples:,} examples; {plan.batch:,} a batch")
    table.add_row("steps", f"{plan.steps:,}, {plan.steps * plan.batch / plan.examples:.1f} epochs")
    expected, measured = _bytes(plan.expected_memory_bytes), _bytes(plan.measured_memory_bytes)
    taken = sum(len(phase.step_seconds) for phase in plan.phases)
    table.add_row("peak memory", f"{expected} expected, {measured} measured after {taken} steps")
    encoding = plan.encoding
    for what, count, cached, seconds in (
        ("clips", encoding.clips, encoding.cached_clips, encoding.clip_seconds),
        ("sentences", encoding.sentences, encoding.cached_sentences, encoding.sentence_seconds),
    ):
        if count:
            table.add_row(f"encoding {what}", f"{_duration(seconds)} for {count:,}, {cached:,} of them from the cache")
    table.add_row("all steps", _duration(plan.steps_seconds))
    table.add_row("the run", f"{_duration(plan.run_seconds)} at this pace, validation left out")
    Console(file=sys.stdout, highlight=False).print(table)


def _facts(metrics: "StepMetrics") -> str:
    scale = "" if metrics.scale is None else f" · scale {metrics.scale:.1f}"
    return (
        f"loss {metrics.loss:.3f}{scale} · {metrics.clips / metrics.seconds:,.0f} samples/s · "
        f"{_bytes(metrics.memory_bytes)} · {metrics.waited_seconds / metrics.seconds:.0%} waiting for data"
    )


def _validation(metrics: "StepMetrics") -> str:
    shown = ", ".join(f"{name} {value:.1%}" for name, value in metrics.validation.items())
    return f"{shown}{' (best so far)' if metrics.best else ''}"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file: the training data, and what is trained.")],
    data: Annotated[Path, typer.Option("--data", help="The folder that the recipe's manifests lie below.")] = Path(),
    out: RunFolder = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe: train.batch=512. Repeatable.")
    ] = None,
    resume: Resume = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    verify_grad: Annotated[
        bool, typer.Option("--verify-grad", help="Compare the cached gradient with plain autograd's first.")
    ] = False,
    tensorboard: Tensorboard = False,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: one JSON object.")] = False,
) -> None:
    """Train a model as a recipe says, and write it as a folder.

    clipact train own.toml --data ~/clips --dry-run

    clipact train own.toml --data ~/clips --out runs/own --set train.batch=512

    \b
    A whole own.toml, which trains a transformer over the frames on top of mini:
        name = "own"
        trained_on = ["my clips"]
        init.model = "mini"
        init.visual = { tower = "frame_aggregator", aggregator = "transformer" }
        data.sources = [{ manifest = "clips.csv", frames = 8 }]
        visual.trainable = "head"
        text.trainable = "nothing"
        train = { batch = 32, steps = 100 }

    clips.csv lies in --data, with the columns path and label (or caption), and
    split, start_seconds and end_seconds where they are wanted. The README's
    "Training on your own clips" has the other towers, ViViT and Video Swin among
    them; eval/recipes has whole recipes, vivit.toml for one.

    OUT/best and OUT/last are models. Ctrl-C saves the run after the step at hand;
    --resume goes on with it, and the weights come out as if nothing had happened.
    """
    from clipact.cache import Cache
    from clipact.cli.terminal import note, tell_absent_labels
    from clipact.models.zoo import pick_device
    from clipact.train.contrastive import ContrastiveTrainer
    from clipact.train.dry_run import dry_run as measure_run
    from clipact.train.dry_run import verify_run
    from clipact.train.recipe import Recipe, load_recipe

    if as_json and not dry_run:
        raise UsageError("--json is given without --dry-run, whose plan it is for; a run logs to OUT/log.jsonl")
    table = load_recipe(recipe, Recipe, changes=changes or ())
    out = out or Path("runs") / table.name
    with TrainScreen() as screen:
        trainer = ContrastiveTrainer(
            table, data=data, device=pick_device(device), cache=Cache(), progress=screen.show_progress
        )
        for name, held in trainer.validation_sets.items():
            if held.absent_labels:
                count = len(held.label_sentences)
                note(f"{name}: {tell_absent_labels(held.absent_labels, count)}")
        if verify_grad:
            show_checks(verify_run(trainer))
        if dry_run:
            show_plan(measure_run(trainer), as_json=as_json)
            return
        screen.follow(trainer, trainer.train(out, resume=resume, tensorboard=tensorboard))
    leave_if_stopped(trainer)
    model = out / ("best" if (out / "best").exists() else "last")
    print(model)
    asked = "" if table.init.labels_only else " --labels drink,read"
    note(f"try it: clipact classify video.mp4{asked} --model {model}")
