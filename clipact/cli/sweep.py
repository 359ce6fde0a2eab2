"""`clipact prompts sweep`: what other words would have scored."""

import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipact.cli.terminal import AllowMismatch, DataFolder, Device, ProtocolArgument

if TYPE_CHECKING:
    from clipact.studies import Sweep


def sweep(
    protocol_or_table: ProtocolArgument,
    model: Annotated[str, typer.Option("--model", "-m", envvar="CLIPACT_MODEL", help="As for classify.")] = "mini",
    data: DataFolder = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the tables and sweep.html go.")] = Path("sweep"),
    labels: Annotated[
        str | None,
        typer.Option(
            show_default="a table's own words", help="A label set or its file, for a table: says more of each."
        ),
    ] = None,
    templates: Annotated[
        str | None, typer.Option(show_default="all shipped ones", help="Prompt sets or files, between commas.")
    ] = None,
    label_format: Annotated[
        str, typer.Option(help="UseLaptop as phrase (using laptop), split (use laptop) or verbatim.")
    ] = "phrases,split,verbatim",
    include: Annotated[
        str, typer.Option(help="The label alone, and with what its label set says of it: synonyms, descriptions, all.")
    ] = "phrase,synonyms,descriptions,all",
    pooling: Annotated[
        str, typer.Option(help="Templates' mean vector, their mean probability, or weighted from unlabelled clips.")
    ] = "embeddings,probabilities,weighted",
    frames: Annotated[
        str | None, typer.Option(show_default="the protocol's", help="Frames a clip: each number is tried.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(show_default="the protocol's", help="The prompt set that all are compared with.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which samples of a table.")] = "all",
    allow_mismatch: AllowMismatch = False,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a wording and line.")] = False,
) -> None:
    """Try templates, ways of writing labels, synonyms, descriptions and pooling on one encoding of the video.

    clipact prompts sweep sports22-dev --data ~/data

    clipact prompts sweep mine.csv --labels daily-living --templates action,bare,my-prompts.toml --frames 4,8

    Every combination of the lists is tried that makes other sentences, or takes them together otherwise; one value
    keeps a list still: --label-format phrases --pooling embeddings.

    Writes tables and a page: each wording's score with its interval, paired tests against the baseline, what changes
    label by label, and which confusions a wording causes or cures. Choose on one part of your data, report on another.

    Stopped, the same command begins again, but decodes and encodes nothing twice: embeddings are kept (clipact cache).
    """
    from clipact.cache import Cache
    from clipact.cli.terminal import find_protocol, note, show_progress, show_video_progress, track
    from clipact.errors import UsageError
    from clipact.evaluate import EvalOptions, read_samples
    from clipact.models.zoo import load_model
    from clipact.studies import Grid, sweep
    from clipact.studies.prompt_sweep.sweep_files import make_room, write_sweep

    protocol, folder = find_protocol(protocol_or_table, data, split=split)
    if labels is not None:
        if not protocol_or_table.endswith(".csv"):
            raise UsageError("--labels is for tables; a protocol names its own")
        protocol = replace(protocol, words=replace(protocol.words, set=labels.removeprefix("@")))
    grid = Grid(
        templates=_split(templates),
        label_format=_split(label_format),
        include=_split(include),
        pooling=_split(pooling),
        frames=_numbers(frames),
    )
    samples = read_samples(protocol, folder, allow_mismatch=allow_mismatch)
    make_room(out)
    loaded = load_model(model, device=device, defer_text=True)

    def progress(items: Iterable[Any], total: int | None, _: str) -> Iterable[Any]:
        return track(items, total=total, what=protocol.name)

    options = EvalOptions(cache=Cache(), progress=progress, video_progress=show_video_progress)
    found = sweep(protocol, samples, loaded, grid, baseline=baseline, options=options, text_progress=show_progress)
    paths = write_sweep(found, out)
    _show(found, as_json=as_json)
    if not as_json:
        print(" ".join(map(str, paths)))
    for sample, cause in found.unreadable[:20]:
        note(f"{sample}: {cause}", kind="error")
    if found.unreadable:
        raise typer.Exit(1)


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _numbers(text: str | None) -> tuple[int | None, ...]:
    from clipact.errors import UsageError

    parts = _split(text)
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--frames is {text!r}; numbers above 0 between commas, such as 4,8,16")
    return tuple(map(int, parts)) or (None,)


def _show(found: "Sweep", *, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from clipact.evaluate.results import zero_shot_status

    if as_json:
        for row in found.best_first:
            difference = row.difference
            print(
                json.dumps(
                    {
                        "variant": row.variant.name,
                        "baseline": difference is None,
                        "top_1": [row.top_1.value, row.top_1.low, row.top_1.high],
                        "difference": difference and [difference.value, difference.low, difference.high],
                        "p": difference and difference.p,
                        "p_holm": difference and row.holm,
                        "p_mcnemar": difference and row.mcnemar,
                        "per_class": row.per_class,
                        "flips": row.flips,
                        "cured": row.cured,
                        "caused": row.caused,
                        "frames": row.variant.frames,
                        "sentences": row.sentences,
                        "weights": row.weights,
                        "zero_shot_status": zero_shot_status(found.run),
                    }
                )
            )
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("wording", overflow="fold", max_width=38)
    for title in ("top-1", "95 % interval", "points", "p, all"):
        table.add_column(title, justify="right", no_wrap=True)
    best = found.best_first
    for row in [*best[:12], *(row for row in best[12:] if row is found.rows[0])]:
        top = row.top_1
        rest = ["baseline", ""]
        if row.difference is not None:
            rest = [f"{100 * row.difference.value:+.1f}", f"{row.holm:.3f}"]
        style = "" if row.difference is not None else "bold"
        shown = Text(row.variant.name, style=style)
        table.add_row(shown, f"{top.value:.1%}", f"{top.low:.1%} – {top.high:.1%}", *rest)
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 80)
    head = f"{found.run['protocol']} · {found.run['model']['name']} · {len(best)} wordings, {found.samples:,} samples"
    console.print(Text(head, style="bold"))
    console.print(Text(zero_shot_status(found.run), style="" if found.run["zero_shot"] else "yellow"))
    console.print(table)
    console.print(Text("Chosen on these samples, the best looks better than it is: report it on others.", style="dim"))
