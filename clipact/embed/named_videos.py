"""What may be named as videos: words of a command line, and tables of videos and parts of them.

A word is a file, a folder, a pattern, an address, a device, `-` for standard input, or `@FILE` for a list of words.
"""

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from clipact.data.manifest_reader import open_manifest
from clipact.embed.clip_source import ClipSource
from clipact.errors import ManifestError, UsageError
from clipact.video.open_source import files_below


def expand_videos(words: Iterable[str]) -> list[str]:
    """Return the sources that the words name, in order.

    A folder gives the videos below it, a pattern the files that it matches, and `@FILE` what the lines of a UTF-8 file
    name: one word a line, without blank lines and those that begin with #. Relative paths start from the working
    directory, those of a list, too. A word that names nothing is kept, so that its absence is reported like any other
    unreadable video. A video whose name begins with @ is written ./@name on the command line, as it is in a list.

    Args:
        words: Such as "clips", "clips/*.mp4", "http://host/video.mp4" and "@videos.txt".

    Raises:
        UsageError: Nothing was named, or a list cannot be read.
    """
    found: list[str] = []
    for word in words:
        listed = _read_list(Path(word[1:])) if word.startswith("@") and len(word) > 1 else [word]
        for line in listed:
            found += _expand(line)
    if not found:
        raise UsageError(
            "no video was named: give files, folders, patterns such as 'clips/*.mp4', or @FILE with one a line"
        )
    return found


def read_sources_table(path: str | Path, root: str | Path | None = None) -> Iterator[ClipSource]:
    """Yield the videos, and parts of them, that a CSV table lists.

    Its columns are path, and perhaps start_seconds and end_seconds; labels and captions are left aside. Rows come in
    their order; one that says what a row before it said comes once.

    Args:
        path: The table, as `clipact.data.manifest` describes it.
        root: The folder that its paths start from; by default the table's own.

    Raises:
        ManifestError: The table cannot be read, or a line of it is wrong.
    """
    with open_manifest(path, root, unlabelled=True) as reader:
        for sample in reader.samples():
            if isinstance(sample, ManifestError):
                raise sample
            yield ClipSource(
                source=reader.root / sample.path,
                name=sample.path,
                start_seconds=sample.start_seconds,
                end_seconds=sample.end_seconds,
            )


def _expand(word: str) -> list[str]:
    matches = [word]
    if glob.has_magic(word) and "://" not in word and not Path(word).exists():
        matches = sorted(glob.glob(word, recursive=True)) or [word]
    # A folder without videos may hold the frames of one as pictures.
    return [name for match in matches for name in [str(path) for path in files_below(Path(match))] or [match]]


def _read_list(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        cause = (
            "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", None) or error
        )
        raise UsageError(
            f"the list {path} cannot be read ({cause}); @FILE takes a text file with one video a line, "
            f"and a video of that name is written ./@{path}"
        ) from error
    # Not splitlines: file names may hold what Unicode calls a line's end.
    return [line for line in (line.removesuffix("\r") for line in lines) if line.strip() and not line.startswith("#")]
