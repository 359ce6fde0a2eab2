"""`clipact data`: check training data before training."""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from clipact.data.check import DataCheck, DataIssue, DataReport

data = typer.Typer(help="Check training data before training.", no_args_is_help=True)
_LISTED = 50


@data.callback()
def _group() -> None:
    """Check training data before training."""


@data.command(no_args_is_help=True)
def check(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST|RECIPE",
            help="A CSV file: path, caption or label, split, start and end seconds. Or a recipe of clipact train.",
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Where a manifest's paths start, or what a recipe's tables lie below.  "
            "[default: a manifest's own folder, or here]",
        ),
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames decoded of each file, from its first to its last.")] = 8,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="PROTOCOL", help="Compare a recipe's data with the files of this protocol. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a table.")] = False,
) -> None:
    """Read all training data, and list what is wrong with them.

    clipact data check captions.csv --data ~/flickr8k

    clipact data check own.toml --data ~/data --against sports22

    The second reads the tables of a recipe, and compares its training data with all
    files that the protocol evaluates on: by their bytes, pictures by difference
    hashes, too (64 bits each, of which at most 6 differ), so that copies can be left
    out before a run.

    Exit code 1 when there are errors; warnings alone leave it at 0.
    """
    from clipact.cli.terminal import note, show_progress
    from clipact.data.check import DataCheck
    from clipact.data.held_out import read_held_out
    from clipact.data.protocol import load_protocol
    from clipact.errors import UsageError

    if table.suffix == ".toml":
        below, protocols = folder or Path(), [load_protocol(name) for name in dict.fromkeys(against or ())]
        held = [one for protocol in protocols for one in read_held_out(protocol, below, progress=show_progress)]
        tables = _tables(table, below)
    else:
        if against:
            raise UsageError(
                "--against is for a recipe, whose tables lie below the same folder as the data of protocols; name this "
                "one in a recipe's data.sources"
            )
        held, tables = [], [(table, folder, "all")]
    errors = 0
    for path, root, split in tables:
        check = DataCheck(path, root, split=split, frames=frames, against=held)
        findings = check.findings(progress=show_progress)
        report = _print_json(check, findings) if as_json else _show(check, findings)
        if report.errors:
            note(f"{report.errors} errors in {path}", kind="error")
        errors += report.errors
    if errors:
        raise typer.Exit(1)


def _tables(recipe: Path, data: Path) -> list[tuple[Path, Path | None, str]]:
    """The tables of a recipe, the folders that their paths start from, and the splits that are trained on."""
    from clipact.data.sources import table_paths
    from clipact.train.recipe import Recipe, load_recipe

    sources = load_recipe(recipe, Recipe).data.sources
    return [(path, root, source.split) for source in sources for path, root in table_paths(source, data)]


def _print_json(check: "DataCheck", findings: Iterator["DataIssue"]) -> "DataReport":
    """One JSON object. Its counts come before the findings, which wait in a file: there may be a million of them."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as spool:
        for number, finding in enumerate(findings):
            spool.write(", " * bool(number) + json.dumps(asdict(finding), ensure_ascii=False))
        report = check.report()
        print(json.dumps(_row(report), ensure_ascii=False)[:-1], end=', "findings": [')
        spool.seek(0)
        shutil.copyfileobj(spool, sys.stdout)
        print("]}")
    return report


def _row(report: "DataReport") -> dict[str, Any]:
    return {
        "manifest": str(report.source),
        "samples": report.samples,
        "captions": report.captions,
        "shared_captions": report.shared_captions,
        "splits": report.splits,
        "labels": report.labels,
        "ignored_columns": list(report.ignored),
        "errors": report.errors,
        "warnings": report.warnings,
    }


def _show(check: "DataCheck", findings: Iterator["DataIssue"]) -> "DataReport":
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    listed = tuple(islice(findings, _LISTED))
    more = sum(1 for _ in findings)
    report = check.report(listed)
    row = _row(report)
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_row("manifest", Text(row["manifest"], overflow="fold"))
    table.add_row("samples", f"{row['samples']:,}")
    table.add_row("splits", ", ".join(f"{name} {count:,}" for name, count in row["splits"].items()))
    if row["captions"]:
        shared = f" ({row['shared_captions']:,} of them are those of other samples)" if row["shared_captions"] else ""
        table.add_row("captions", f"{row['captions']:,}{shared}")
    if row["labels"]:
        counts = list(row["labels"].values())
        table.add_row("labels", f"{len(counts):,}, each {counts[-1]:,} to {counts[0]:,} times")
    if row["ignored_columns"]:
        table.add_row("ignored columns", ", ".join(row["ignored_columns"]))
    table.add_row("errors", f"{row['errors']:,}")
    table.add_row("warnings", f"{row['warnings']:,}")
    console = Console(file=sys.stdout, highlight=False)
    console.print(table)
    for finding in listed:
        console.print(
            f"line {finding.line}: {finding.kind}: {finding.path}{': ' * bool(finding.path)}{finding.cause}",
            markup=False,
            soft_wrap=True,
        )
    if more:
        console.print(f"… and {more:,} more; --json lists all of them")
    return report
