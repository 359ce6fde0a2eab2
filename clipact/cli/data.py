"""`clipact data`: what there is to learn from, looked at before it is learnt from."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from clipact.data.check import Report

data = typer.Typer(help="Look at training data before anything is learnt from it.", no_args_is_help=True)
_LISTED = 50


@data.callback()
def _group() -> None:
    """Look at training data before anything is learnt from it."""


@data.command(no_args_is_help=True)
def check(
    manifest: Annotated[Path, typer.Argument(help="A CSV file: path, caption or label, split, start and end seconds.")],
    root: Annotated[
        Path | None, typer.Option("--data", help="The folder that its paths start from.  [default: the manifest's own]")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames decoded of each file, from its first to its last.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Read everything that a manifest names, and say what is wrong with it.

    clipact data check captions.csv --data ~/flickr8k

    Exit code 1 when there are errors; warnings alone leave it at 0.
    """
    from clipact.cli.screen import note, track
    from clipact.data.check import check_manifest

    def watch(items: Iterable[Any], total: int) -> Iterable[Any]:
        return track(items, total=total, what="reading")

    report = check_manifest(manifest, root, frames=frames, watch=watch)
    if as_json:
        print(json.dumps(_row(report), ensure_ascii=False))
    else:
        _show(report)
    if report.errors:
        note(f"{report.errors} errors in {manifest}", kind="error")
        raise typer.Exit(1)


def _row(report: "Report") -> dict[str, Any]:
    return {
        "manifest": str(report.manifest.source),
        "samples": len(report.manifest.samples),
        "captions": report.captions,
        "splits": report.splits,
        "labels": report.labels,
        "ignored_columns": list(report.manifest.ignored),
        "errors": report.errors,
        "warnings": len(report.findings) - report.errors,
        "findings": [asdict(finding) for finding in report.findings],
    }


def _show(report: "Report") -> None:
    from rich.console import Console
    from rich.table import Table

    row = _row(report)
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_row("samples", f"{row['samples']:,}")
    table.add_row("splits", ", ".join(f"{name} {count:,}" for name, count in row["splits"].items()))
    if row["captions"]:
        table.add_row("captions", f"{row['captions']:,}")
    if row["labels"]:
        counts = list(row["labels"].values())
        table.add_row("labels", f"{len(counts):,}, each {counts[-1]:,} to {counts[0]:,} times")
    if row["ignored_columns"]:
        table.add_row("ignored columns", ", ".join(row["ignored_columns"]))
    table.add_row("errors", f"{row['errors']:,}")
    table.add_row("warnings", f"{row['warnings']:,}")
    console = Console(file=sys.stdout, highlight=False)
    console.print(table)
    for finding in report.findings[:_LISTED]:
        console.print(
            f"line {finding.line}: {finding.kind}: {finding.path}{': ' * bool(finding.path)}{finding.cause}",
            markup=False,
            soft_wrap=True,
        )
    if len(report.findings) > _LISTED:
        console.print(f"… and {len(report.findings) - _LISTED:,} more; --json lists all of them")
