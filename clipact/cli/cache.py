"""`clipact cache`: what clipact keeps on disk, and clear it."""

import json
import sys
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

HELP = (
    "Show and clear what clipact keeps on disk so that nothing is computed twice. "
    "CLIPACT_CACHE moves it, CLIPACT_CACHE_GB (20) bounds it."
)

cache = typer.Typer(help=HELP, no_args_is_help=True)


@cache.command()
def info(as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """Tell where the cache is, how large it may become, and what it holds of each kind.

    The folder is the one that the environment variable CLIPACT_CACHE names, else ~/.cache/clipact. It may hold the
    gigabytes that CLIPACT_CACHE_GB says, else 20; what was not used for longest is removed first. Sizes count in whole
    blocks of 4,096 bytes.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from clipact.cache import Cache
    from clipact.cache_entries import KINDS

    store = Cache()
    usages = store.info()
    total_bytes = sum(usage.bytes + usage.partial_bytes for usage in usages)
    if as_json:
        facts = {"folder": str(store.root), "limit_bytes": store.limit_bytes, "bytes": total_bytes}
        print(json.dumps(facts | {"kinds": [asdict(usage) for usage in usages]}, indent=2))
        return
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("kind", no_wrap=True)
    for column in ("entries", "size"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("oldest use", "newest use"):
        table.add_column(column, no_wrap=True)
    table.add_column("what", overflow="fold")
    for usage in (usage for usage in usages if usage.entries):
        used = (_date(usage.oldest_use_seconds), _date(usage.newest_use_seconds))
        table.add_row(usage.kind, f"{usage.entries:,}", _size(usage.bytes), *used, KINDS[usage.kind])
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 80)
    console.print(Text(f"{store.root}  (CLIPACT_CACHE moves it)"), soft_wrap=True)
    console.print(f"{_size(total_bytes)} of {_size(store.limit_bytes)}  (CLIPACT_CACHE_GB bounds it)", "", sep="\n")
    console.print(table if table.row_count else "nothing is kept yet")
    if partial_files := sum(usage.partial_files for usage in usages):
        partial_bytes = sum(usage.partial_bytes for usage in usages)
        console.print(f"\n{partial_files:,} files ({_size(partial_bytes)}) are being written, or were left by a kill")


@cache.command()
def clear(
    kinds: Annotated[
        list[str] | None, typer.Option("--kind", metavar="KIND", help="Only this kind; may be given again.")
    ] = None,
    older_than_days: Annotated[
        float | None, typer.Option("--older-than", min=0, metavar="DAYS", help="Only what was not used for so long.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove what the cache holds; it is computed again when it is needed.

    clipact cache clear --kind frames --older-than 30

    In a terminal it asks first. Only the cache's own files are removed.
    """
    from clipact.cache import Cache
    from clipact.cache_entries import KINDS
    from clipact.cli.terminal import note
    from clipact.errors import UsageError, choices

    for kind in kinds or ():
        if kind not in KINDS:
            raise UsageError(f"--kind is {kind!r}; {choices(kind, KINDS)}")
    store = Cache()
    if not yes and sys.stdin.isatty():
        what = f"everything of kind {', '.join(kinds)}" if kinds else "everything"
        age = "" if older_than_days is None else f" that was not used for {older_than_days:g} days"
        print(f"Remove {what}{age} from {store.root}? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            note("nothing was removed")
            raise typer.Exit(1)
    seconds = None if older_than_days is None else older_than_days * 86_400.0
    removed = store.clear(kinds=kinds, older_than_seconds=seconds)
    left = f" and {removed.partial_files:,} files that a kill had left" if removed.partial_files else ""
    print(f"removed {removed.entries:,} entries{left}: {_size(removed.bytes)}")


def _date(unix_seconds: float | None) -> str:
    return "" if unix_seconds is None else datetime.fromtimestamp(unix_seconds).strftime("%Y-%m-%d")


def _size(count_bytes: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6)):
        if count_bytes >= factor:
            return f"{count_bytes / factor:.1f} {unit}"
    return f"{count_bytes / 1000:.0f} kB"
