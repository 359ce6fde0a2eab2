"""A manifest is a CSV table of what there is to learn from: a line a file and its caption or label.

    path,caption,split                          several captions a file: several lines with one path
    path,label,split,start_seconds,end_seconds  a part of a file is a sample of its own
    path,label,extra_labels                          what else is true of it: other labels, with | between them

Only `path` and one of `caption` and `label` must be there; where nothing is to be said of clips, `path` alone. It is
read strictly, whole or line by line; no media file is opened.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from clipact.data.manifest_cells import SPLITS
from clipact.data.manifest_reader import ManifestLine, ManifestReader, ManifestSample, count_rows, open_manifest
from clipact.errors import ManifestError, choices

__all__ = [
    "SPLITS",
    "Manifest",
    "ManifestLine",
    "ManifestReader",
    "ManifestSample",
    "count_rows",
    "iterate_manifest",
    "no_such_split",
    "open_manifest",
    "read_manifest",
    "scan_manifest",
]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A whole table.

    source   the CSV file
    root     the folder that paths start from
    samples  in the order in which they first stand in the file
    repeats  lines that say again what a line before them says; they count once
    ignored  columns that are not ours
    """

    source: Path
    root: Path
    samples: tuple[ManifestSample, ...]
    repeats: tuple[int, ...] = ()
    ignored: tuple[str, ...] = ()

    def of_split(self, split: str) -> tuple[ManifestSample, ...]:
        """The samples of one split, or every one for "all"; ManifestError when there are none."""
        chosen = tuple(sample for sample in self.samples if split in ("all", sample.split))
        if not chosen:
            raise no_such_split(self.source, split, {sample.split for sample in self.samples})
        return chosen


def no_such_split(source: Path, split: str, there: Iterable[str]) -> ManifestError:
    """Return the error of a table that has no sample of a split, but samples of the splits that are `there`."""
    return ManifestError(source, None, f"no sample is of split {split!r}; {choices(split, {*there, 'all'})}")


def iterate_manifest(
    source: str | Path, root: str | Path | None = None, *, group_column: str = "", unlabelled: bool = False
) -> Iterator[ManifestSample | ManifestError]:
    """Yield the samples of a table while it is read, in the order of lines.

    A part of a file, by its path, start and end, comes once, as its first line gives it: of several captions, the
    first. A table of a million rows takes 35 MB of memory, and 60 MB where each has a caption
    and a path of its own.

    Args:
        source: The CSV file.
        root: The folder that paths start from, by default the file's own; see `open_manifest`, which tells it.
        group_column: The column that `ManifestSample.group` is read from.
        unlabelled: Leave captions and labels aside.

    Returns:
        The samples, and for each line that is wrong the error that says what is; `count_rows` is at least how many.

    Raises:
        ManifestError: As of `open_manifest`, when the first sample is asked for; or the file cannot be read on.
    """
    with open_manifest(source, root, group_column=group_column, unlabelled=unlabelled) as reader:
        yield from reader.samples()


def read_manifest(
    source: str | Path, root: str | Path | None = None, *, group_column: str = "", unlabelled: bool = False
) -> Manifest:
    """The table in a CSV file; paths start from `root`, by default the file's own folder.

    Without a column `split` every sample is of "train". Read `unlabelled`, captions and labels are left aside.
    ManifestError names the file and the first wrong line.
    """
    manifest, wrong = scan_manifest(source, root, group_column=group_column, unlabelled=unlabelled)
    if wrong:
        more = f" (and {len(wrong) - 1} more: `clipact data check` lists them)" if len(wrong) > 1 else ""
        raise ManifestError(wrong[0].path, wrong[0].line, wrong[0].cause + more)
    return manifest


def scan_manifest(
    source: str | Path, root: str | Path | None = None, *, group_column: str = "", unlabelled: bool = False
) -> tuple[Manifest, list[ManifestError]]:
    """What can be used of the table, and everything that is wrong with the rest.

    ManifestError when nothing can: the file is not there, not CSV, has no line, or lacks a column.
    """
    samples: list[ManifestSample] = []
    captions: dict[int, list[str]] = {}  # beyond the first, by the sample's number
    repeats: list[int] = []
    wrong: list[ManifestError] = []
    with open_manifest(source, root, group_column=group_column, unlabelled=unlabelled) as reader:
        for line in reader.lines():
            if isinstance(line, ManifestError):
                wrong.append(line)
            elif line.first:
                samples.append(line.sample)
            elif line.repeat:
                repeats.append(line.sample.line)
            else:
                captions.setdefault(line.number, []).extend(line.sample.captions)
    for number, more in captions.items():
        samples[number] = replace(samples[number], captions=(*samples[number].captions, *more))
    manifest = Manifest(
        source=reader.source,
        root=reader.root,
        samples=tuple(samples),
        repeats=tuple(repeats),
        ignored=reader.ignored,
    )
    return manifest, wrong
