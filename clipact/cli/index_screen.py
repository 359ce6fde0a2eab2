"""What a person sees of an index: what a build came to, what it holds, the neighbours of a query."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipact.cli.terminal import note, track

if TYPE_CHECKING:
    from clipact.label_index import IndexEntry, LabelIndex, Quality


def watch(items: Iterable[Any], total: int | None, what: str) -> Iterable[Any]:
    """The items of a build, with a bar."""
    return track(items, total=total, what=what)


def say_built(made: "LabelIndex") -> None:
    """Say what a build came to, and whether the recall that was wanted was reached."""
    progress, table = made.table.progress, made.table
    note(f"{len(made):,} entries" + (f"; {progress.repeats:,} repeated one of them" if progress.repeats else ""))
    if table.nearest is None:
        note("every entry is compared: no approximation")
        return
    quality = table.quality
    assert quality is not None
    note(
        f"{table.nearest.kind} {table.nearest.recipe}: recall@10 {quality.recall_10:.1%} at width {table.nearest.width}"
    )
    if quality.recall_10 < table.plan.recall:
        note(f"the recall of {table.plan.recall:.0%} was not reached; --kind hnsw or exact finds more", kind="warning")


def index_facts(opened: "LabelIndex", quality: "Quality | None") -> dict[str, Any]:
    """What an index holds, for machines."""
    table, about = opened.table, opened.table.about
    return {
        "folder": str(opened.folder.path),
        "entries": len(opened),
        "removed": table.removed_rows,
        "kind": opened.kind,
        "recipe": table.nearest and table.nearest.recipe,
        "width": table.nearest and table.nearest.width,
        "compared_one_by_one": _one_by_one(opened),
        "dim": about.dim,
        "precision": about.precision,
        "model": about.model,
        "model_key": about.model_key,
        "prompts": about.prompts,
        "bytes": _bytes(opened),
        "quality": quality and vars(quality),
    }


def index_lines(opened: "LabelIndex", quality: "Quality | None") -> dict[str, str]:
    """The same for people: what is said, by its title."""
    table, about = opened.table, opened.table.about
    lines = {
        "entries": f"{len(opened):,}" + (f", and {table.removed_rows:,} removed" if table.removed_rows else ""),
        "vectors": f"{about.dim} numbers in {about.precision.removeprefix('float')} bits",
        "on disk": f"{_bytes(opened) / 1e6:,.1f} MB, every file as its hash says",
        "model": f"{about.model} ({about.model_key[:12]}…)",
        "prompts": about.prompts,
        "search": "exact: every entry is compared",
    }
    if table.nearest is not None:
        lines["search"] = f"{table.nearest.kind}, {table.nearest.recipe}, width {table.nearest.width}"
        if tail := _one_by_one(opened):
            lines["search"] += f"; {tail:,} added since are compared one by one"
    if quality is not None:
        lines["recall@1"] = f"{quality.recall_1:.1%} of an exact search's"
        lines["recall@10"] = f"{quality.recall_10:.1%}"
        lines["first answer"] = f"changed by the approximation in {quality.first_changed:.1%}"
        lines["measured"] = f"with {quality.queries:,} queries among {quality.rows:,}: {quality.source}"
    return lines


def show_neighbours(name: str, pairs: "Sequence[tuple[IndexEntry, float]]") -> None:
    """Print the entries nearest to a query, with their cosines."""
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for number, (entry, cosine) in enumerate(pairs):
        table.add_row(f"{cosine:.3f}", Text(entry.text, style="bold green" if number == 0 else ""))
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 80)
    console.print(Text(name, style="bold"), table, "")


def _one_by_one(opened: "LabelIndex") -> int:
    table = opened.table
    return table.rows - (table.nearest.rows if table.nearest else 0)


def _bytes(opened: "LabelIndex") -> int:
    return sum(record.bytes for record in opened.table.files)
