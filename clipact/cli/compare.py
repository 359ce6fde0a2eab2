"""`clipact compare`: zero-shot, probes and supervised models on the same clips, frames and split."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipact.cli.terminal import AllowMismatch, DataFolder, Device, ProtocolArgument, Resume

if TYPE_CHECKING:
    from clipact.studies.compare import ComparisonTable, FailedRun, FinishedRun


def compare(
    protocol_or_table: ProtocolArgument,
    models: Annotated[str, typer.Option("--models", "-m", help="Rows, between commas; the first is the reference.")],
    data: DataFolder = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where all of it goes.")] = Path("comparison"),
    split: Annotated[
        str | None,
        typer.Option(
            show_default="test of a table that has it, else 1/3",
            help="What judges: 1/3 is every third group (person, film); or a table's split. The rest is learnt.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row that hangs on chance.")] = 1,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="A TOML file: frames, size, steps and rates of all rows.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe: whole.train.steps=50. Repeatable.")
    ] = None,
    resume: Resume = False,
    features: Annotated[
        Path | None,
        typer.Option(
            show_default="none",
            help="A file of clipact embed, of the clips that are compared (embed --set size=[64,64]): rows of its "
            "model decode nothing.",
        ),
    ] = None,
    allow_mismatch: AllowMismatch = False,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a row and line.")] = False,
) -> None:
    """Compare zero-shot models, probes and supervised models on the same clips.

    clipact compare mine.csv --models zero-shot:mini,probe:mini,i3d --seeds 3

    clipact compare weizmann --data ~/data --models zero-shot:mini,lstm:mini

    \b
    Rows, of which the first is what all others are compared with:
        zero-shot:MODEL      the labels' words, and no clip of them
        probe:MODEL          logistic regression on its embeddings
        knn:MODEL@5          the votes of the 5 nearest learnt clips
        few-shot:MODEL@8     a probe of 8 clips a label, others with each seed
        mean, lstm, gru, attentive    over the frozen frames of mini; lstm:MODEL
        i3d, i3d+se, i3d+cbam, i3d+space_time, i3d+non-local    from nothing
        vit, vivit, vivit-joint, swin3d                         from nothing
        videomae             a ViViT from nothing; videomae:FOLDER of pretrain
        videomae+pretraining the same, after learning without labels

    What trains, trains on the clips that do not judge; every row sees the same
    frames at the same size (8 of 64 x 64 pixels; --set clip.size=[112,112]) and
    chooses from the same labels. OUT/comparison.html is the page, and
    comparison.json the same for machines: top-1 and top-5 with intervals that
    draw whole groups, paired tests, label by label, and what each row takes.

    Stopped or killed, the same command with --resume goes on: what is finished is
    not done again, and rows may be added. A row that fails is named, the rest goes
    on, and the exit code is 1.
    """
    from clipact.cache import Cache
    from clipact.cli.terminal import find_protocol, note
    from clipact.cli.train import TrainScreen
    from clipact.errors import UsageError
    from clipact.studies.compare import ExecutionContext, load_settings, plan_comparison, read_split, tabulate
    from clipact.studies.compare.table import write_comparison

    settings = load_settings(recipe, changes=changes or ())
    protocol, folder = find_protocol(protocol_or_table, data)
    own = Path(protocol_or_table) if protocol_or_table.endswith(".csv") else protocol
    parts = read_split(own, folder, split=split, allow_mismatch=allow_mismatch)
    names = [name.strip() for name in models.split(",") if name.strip()]
    planned = plan_comparison(names, parts, out, settings=settings, seeds=seeds)
    if not resume and any(run.folder.exists() for run in planned.runs):
        raise UsageError(f"{out} has runs of this comparison: go on with --resume, or name another folder with --out")
    outcomes: list[FinishedRun | FailedRun] = []
    try:
        with TrainScreen() as screen:
            whole = screen.progress.add_task("compare", total=len(planned.runs))
            context = ExecutionContext(
                device=device,
                cache=Cache(),
                progress=screen.show_progress,
                follow=screen.follow,
                features=features,
            )
            for outcome in planned.execute(context):
                outcomes.append(outcome)
                screen.progress.advance(whole)
                screen.say(_line(outcome))
    except KeyboardInterrupt:
        note(f"stopped after {len(outcomes)} of {len(planned.runs)} runs; the same command goes on")
        raise typer.Exit(130) from None
    table = tabulate(planned, outcomes)
    paths = write_comparison(table, out)
    if as_json:
        _print_json(table)
    else:
        _show(table, paths)
    for sample, cause in table.unreadable[:20]:
        note(f"{sample}: {cause}", kind="error")
    for one in table.failed:
        note(f"{one.method_run.method.name}, seed {one.method_run.seed}: {one.cause} ({one.file})", kind="error")
    if table.failed or table.unreadable:
        raise typer.Exit(1)


def _line(outcome: "FinishedRun | FailedRun") -> str:
    from clipact.metrics import top_k
    from clipact.studies.compare import FinishedRun

    row = f"{outcome.method_run.method.name}, seed {outcome.method_run.seed}"
    if not isinstance(outcome, FinishedRun):
        return f"{row}: failed: {outcome.cause}"
    found = top_k(outcome.result.scores, outcome.result.true)
    seconds = outcome.result.run["comparison"]["training_seconds"]
    before = ", finished before" if outcome.before else ""
    return f"{row}: top-1 {found:.1%}, {seconds:.0f} s of training{before}"


def _print_json(table: "ComparisonTable") -> None:
    from clipact.studies.compare.table import failure_facts, row_facts

    for facts in [*map(row_facts, table.rows), *map(failure_facts, table.failed)]:
        print(json.dumps(facts, ensure_ascii=False, allow_nan=False))


def _show(table: "ComparisonTable", paths: Sequence[Path]) -> None:
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 80)
    split, clip = table.comparison.split, table.comparison.settings.clip
    size = f"{clip.frames} frames of {clip.size[0]} x {clip.size[1]} pixels"
    console.print(Text(f"{split.protocol.name} · {size} · {sum(table.counts)} clips judge", style="bold"))
    console.print(Text(f"split {split.description}", style="dim"))

    def grid(*titles: str) -> Grid:
        made = Grid(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        made.add_column("row", overflow="fold", max_width=26)
        for title in titles:
            made.add_column(title, justify="right", no_wrap=True)
        return made

    right = grid("top-1", "95 % interval", "top-5", "points", "p, all")
    takes = grid("params", "GFLOPs", "ms", "training", "memory")
    for row in table.rows:
        compared = ["", ""] if row.difference is None else [f"{100 * row.difference.value:+.1f}", f"{row.holm:.3f}"]
        fifth = "–" if row.top_5 is None else f"{row.top_5.value:.0%}"
        name = row.name if row.runs == row.asked else f"{row.name} ({row.runs} of {row.asked})"
        top = row.top_1
        shown = Text(name, style="bold" if row.difference is None else "")
        right.add_row(shown, f"{top.value:.1%}", f"{top.low:.1%} – {top.high:.1%}", fifth, *compared)
        usage = row.usage
        takes.add_row(
            Text(name),
            f"{usage.parameters / 1e6:.1f} M",
            f"{usage.gflops:.2f}",
            f"{usage.milliseconds:.1f}",
            f"{usage.training_seconds:.0f} s",
            f"{usage.peak_memory_bytes / 1e9:.2f} GB",
        )
    console.print(right)
    console.print()
    console.print(takes)
    if table.detectable:
        low, high = (f"{100 * one:.0f}" for one in table.detectable)
        said = f"Two rows are told apart from {low} points on at best, from {high} at worst"
        few = f"; of {table.groups} groups no p is below {table.least_p:.2g}" if table.least_p > 0.0005 else ""
        console.print(Text(f"{said}{few}.", style="dim"))
    for row in table.rows:
        if row.method.kind == "zero-shot" and not row.zero_shot:
            console.print(Text(f"{row.name}: {row.zero_shot_status}", style="yellow"))
    console.print(Text(" ".join(map(str, paths)), style="dim"), soft_wrap=True)
