"""What a person means by the words on the command line: files, folders and globs are videos; cards and tables."""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipact.errors import UsageError
from clipact.video.named import files_below

if TYPE_CHECKING:
    from clipact.protocol import Card

Videos = Annotated[
    list[str],
    typer.Argument(
        metavar="VIDEO",
        help="Files, folders of them, patterns; a folder of numbered pictures, - (standard input), http://..., "
        "rtsp://... or /dev/video0 (with --to).",
    ),
]
"""The argument of every command that takes several videos."""

ModelName = Annotated[
    str, typer.Option("--model", "-m", envvar="CLIPACT_MODEL", help="mini, a folder, or open_clip:ARCH/TAG.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Precision = Annotated[str, typer.Option(help="fp32; bf16: nearly the same, twice as fast; auto: bf16 where as good.")]
"""Options of every command that has a model look, and where it may look in 16 bits."""

Protocol = Annotated[str, typer.Argument(metavar="CARD|MANIFEST", help="A card, or a CSV table.")]
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="The folder that holds the data.  [default: a table's own, or here]")
]
Partial = Annotated[bool, typer.Option("--partial", help="Take data that are not the card's; mark it.")]
"""Options of every command that is carried out under a protocol."""

RunFolder = Annotated[
    Path | None, typer.Option("--out", "-o", help="The run's folder.  [default: runs/ and the recipe's name]")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="Log for TensorBoard, too.")]
"""Options of every command that carries out a recipe."""


def expand_videos(words: Iterable[str]) -> list[str]:
    """The sources that the words name, in order: a folder gives the videos below it, a glob those it matches.

    A word that names nothing is kept, so that its absence is reported like any other unreadable video.
    """
    found: list[str] = []
    for word in words:
        matches = [word]
        if glob.has_magic(word) and not Path(word).exists():
            matches = sorted(glob.glob(word, recursive=True)) or [word]
        for match in matches:
            # A folder without videos may hold the frames of one as pictures.
            found += [str(path) for path in files_below(Path(match))] or [match]
    if not found:
        raise UsageError("no video was named: give files, folders or patterns such as 'clips/*.mp4'")
    return found


def index_folder(labels: Sequence[str]) -> Path | None:
    """The folder that `index:DIR` names; None when labels are meant. UsageError when both are."""
    named = [value.removeprefix("index:") for value in labels if value.startswith("index:")]
    if named and len(labels) > 1:
        raise UsageError(
            f"--labels takes one index and nothing beside it; add labels to {named[0]} by clipact index add"
        )
    return Path(named[0]).expanduser() if named else None


def find_protocol(protocol: str, data: Path | None, *, split: str = "all") -> "tuple[Card, Path]":
    """The card by its name or file, or that of a CSV table of one's own, and the folder of its data."""
    from clipact.evaluate import manifest_card
    from clipact.protocol import load_card

    if protocol.endswith(".csv"):
        return manifest_card(protocol, split=split), data or Path(protocol).parent
    if split != "all":
        raise UsageError("--split is for tables; a card names its own")
    return load_card(protocol), data or Path()
