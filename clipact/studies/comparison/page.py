"""A comparison on disk: comparison.json and comparison.html, with the report's engine and look."""

import json
from pathlib import Path

from clipact import __version__
from clipact.report.sections import section
from clipact.report.writing import render, write_text
from clipact.studies.comparison.table import Table

_TEMPLATE = Path(__file__).with_name("comparison.html.j2")


def write_comparison(table: Table, folder: Path) -> list[Path]:
    """The two files; ResultError when one cannot be written."""
    text = json.dumps(table.facts(), indent=1, ensure_ascii=False, allow_nan=False)
    return [
        write_text(folder / "comparison.json", text + "\n"),
        write_text(folder / "comparison.html", page(table)),
    ]


def page(table: Table) -> str:
    """One self-contained HTML page, every word of a result escaped."""
    return render(
        _TEMPLATE,
        table=table,
        split=table.comparison.split,
        clip=table.comparison.settings.clip,
        rows=table.rows,
        confusions=[section(result).pairs[:3] for result in table.results],
        run=table.results[0].run,
        version=__version__,
    )
