"""`clipact eval`: what a model scores under a protocol, and how sure that is."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipact.cli.terminal import AllowMismatch, DataFolder, Device, PrecisionOption, Resume
from clipact.clip_spec import Averaging
from clipact.data.protocol import load_protocol, protocol_names

if TYPE_CHECKING:
    from clipact.evaluate.metric_values import MetricValue
    from clipact.evaluate.results import ClassificationResult, RetrievalResult

    Row = tuple[str, str, "ClassificationResult | RetrievalResult", Path, tuple[MetricValue, ...]]


def _help() -> str:
    protocols = "\n\n".join(f"[bold]{name}[/] {load_protocol(name).title}" for name in protocol_names())
    return f"""Score models under a protocol, or on a table of your own, with 95 % intervals.

clipact eval weizmann ut_interaction --data ~/data --model mini

clipact eval mine.csv --data ~/videos --model mini --model runs/best --prompts single

A protocol fixes the files (by hash and count), the words, the frames and the average; other data are refused, or with \
--allow-mismatch the result is marked. A table is CSV with path and label, or path and caption; its paths start beside \
it, or at --data; what shares a value in a column named group (a person, a film) counts as one for the intervals, and \
a column extra_labels names other labels that are true, with | between them. Results go to OUT/PROTOCOL--MODEL; \
`clipact report` makes a page of them. A run that was killed goes on with --resume, bit for bit. \
Embeddings are kept: other prompts or labels need no decoding. Exit code 1 when a file could not be read.

The protocols:

{protocols}"""


HELP = _help()


def evaluate(
    protocols_or_tables: Annotated[
        list[str], typer.Argument(metavar="PROTOCOL|MANIFEST", help="Protocols, or CSV tables.")
    ],
    model: Annotated[
        list[str], typer.Option("--model", "-m", help="mini, a folder, or open_clip:ARCH/TAG. Repeatable.")
    ] = ["mini"],  # noqa: B006
    data: DataFolder = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where results go.")] = Path("results"),
    resume: Resume = False,
    allow_mismatch: AllowMismatch = False,
    split: Annotated[str, typer.Option(help="Which samples of a table.")] = "all",
    prompts: Annotated[str | None, typer.Option(help="Other sentences than the protocol's.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Other frames a view.")] = None,
    views: Annotated[int | None, typer.Option(min=1, help="Other views a file.")] = None,
    averaging: Annotated[str | None, typer.Option(help="embeddings, logits or probabilities.")] = None,
    features: Annotated[
        Path | None, typer.Option(show_default="none", help="A file of clipact embed, in place of decoding.")
    ] = None,
    device: Device = "auto",
    precision: PrecisionOption = "fp32",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a result and line.")] = False,
) -> None:
    """Score models under a protocol (see HELP)."""
    from clipact.cache import Cache
    from clipact.cli.terminal import find_protocol, note, show_video_progress, track
    from clipact.errors import UsageError, choices
    from clipact.evaluate import EvalOptions, read_samples
    from clipact.evaluate.metric_values import metric_values
    from clipact.evaluate.run_protocol import ProtocolOverrides, result_folder, run_protocol
    from clipact.models.zoo import load_model, pick_precision
    from clipact.prompts import PromptSet

    allowed: dict[str, Averaging] = {one: one for one in ("embeddings", "logits", "probabilities")}
    if averaging is not None and averaging not in allowed:
        raise UsageError(f"--averaging is {averaging!r}; {choices(averaging, allowed)}")
    changes = ProtocolOverrides(
        prompts=prompts, frames=frames, views=views, averaging=None if averaging is None else allowed[averaging]
    )

    # All that is asked for is known to be there before the first of it runs.
    models = {name: pick_precision(name, precision, device=device) for name in model}
    chosen = []
    for protocol_or_table in dict.fromkeys(protocols_or_tables):
        own, folder = find_protocol(protocol_or_table, data, split=split)
        protocol, said = changes.apply(own)
        if not protocol.retrieval:
            PromptSet.load(protocol.words.templates)
        for name, computed_in in models.items():
            result_folder(protocol, name, out, precision=computed_in)
        chosen.append(
            (
                protocol,
                read_samples(own, folder, allow_mismatch=allow_mismatch),
                () if protocol_or_table.endswith(".csv") else said,
            )
        )
    cache, unread = Cache(), 0
    for name, computed_in in models.items():
        loaded = load_model(name, device=device, precision=computed_in, defer_text=True)
        for protocol, samples, said in chosen:

            def progress(
                items: Iterable[Any], total: int | None, _: str, what: str = f"{protocol.name}, {name}"
            ) -> Iterable[Any]:
                return track(items, total=total, what=what)

            options = EvalOptions(
                cache=cache, resume=resume, progress=progress, features=features, video_progress=show_video_progress
            )
            result, folder = run_protocol(protocol, samples, loaded, out, changed=said, options=options)
            unread += len(result.unreadable)
            row = (protocol.name, name, result, folder, metric_values(result))
            if as_json:
                print(json.dumps(_object(row), ensure_ascii=False, allow_nan=False), flush=True)
            else:
                _show(row)
            for sample, cause in result.unreadable[:20]:
                note(f"{sample}: {cause}", kind="error")
    if unread:
        note(f"{unread:,} files could not be read; each result names all of its own", kind="error")
        raise typer.Exit(1)


def _object(row: "Row") -> dict[str, Any]:
    from dataclasses import asdict

    from clipact.evaluate.results import zero_shot_status

    protocol, name, result, folder, found = row
    run = result.run
    return {
        "protocol": protocol,
        "model": name,
        "result": str(folder),
        "zero_shot": run["zero_shot"],
        "zero_shot_why": run["zero_shot_why"],
        "zero_shot_status": zero_shot_status(run),
        "partial": run["partial"],
        "partial_why": run["partial_why"],
        "metrics": [{key: None if value != value else value for key, value in asdict(one).items()} for one in found],
        "samples": len(result.samples),
        "labels": len(getattr(result, "labels", ())),
        "absent_labels": list(getattr(result, "absent_labels", ())),
        "unreadable": [list(one) for one in result.unreadable],
        "seconds": dict(result.seconds),
    }


def _show(row: "Row") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from clipact.cli.terminal import tell_absent_labels
    from clipact.evaluate.results import ClassificationResult, zero_shot_status

    protocol, name, result, folder, found = row
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 80)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("figure", overflow="fold", max_width=32)
    for title in ("value", "95 % interval", "samples"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in found:
        value = f"{one.value:.1f}" if one.is_rank else f"{one.value:.1%}"
        value += "" if one.spread is None else f" ± {one.spread:.1%}"
        between = f"{one.low:.1f} – {one.high:.1f}" if one.is_rank else f"{one.low:.1%} – {one.high:.1%}"
        style = "bold" if one.headline else ""
        table.add_row(Text(one.name, style=style), Text(value, style=style), between, f"{one.count:,}")
    labels = f" · {len(result.labels):,} labels" if isinstance(result, ClassificationResult) else ""
    console.print(Text(f"{protocol} · {name}{labels}", style="bold"))
    if isinstance(result, ClassificationResult) and result.absent_labels:
        console.print(Text(tell_absent_labels(result.absent_labels, len(result.labels)), style="yellow"))
    warned = "" if result.run["zero_shot"] else "yellow"
    console.print(Text(zero_shot_status(result.run), style=warned), soft_wrap=False)
    for why in result.run["partial_why"]:
        console.print(Text(f"partial: {why}", style="yellow"))
    console.print(table)
    console.print(Text(f"{result.seconds.get('total', 0):.1f} s · {folder}", style="dim"), "", soft_wrap=True)
