"""Unlabelled clips: a folder, a pattern or a manifest becomes training examples without sentences."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipact.data.fingerprint import seed_from
from clipact.data.manifest import read_manifest
from clipact.data.sources import TrainingExample
from clipact.errors import ConfigError
from clipact.video.open_source import VIDEO_SUFFIXES, files_below
from clipact.video.picture_file import SUFFIXES


@dataclass(frozen=True, kw_only=True)
class UnlabelledConfig:
    """Files, or the lines of a manifest; one of the two.

    files     a folder below the data folder, or a pattern such as "clips/*.mp4": its videos, and pictures where a clip
              is one frame
    manifest  a CSV file below the data folder with a column path; split, start_seconds and end_seconds count, labels
              and captions are not read
    root      the folder that the manifest's paths start from, below the data folder; by default the manifest's own
    split     which of the manifest's samples, or "all"
    clips     clips a file
    """

    files: str | None = None
    manifest: Path | None = None
    root: Path | None = None
    split: str = "train"
    clips: int = 1

    def __post_init__(self) -> None:
        if (self.files is None) == (self.manifest is None):
            raise ConfigError("clips are those of files or of a manifest; give one of the two")
        if self.clips < 1:
            raise ConfigError(f"clips is {self.clips}; it is at least 1")


def read_clips(sources: Sequence[UnlabelledConfig], data: Path, *, frames: int) -> tuple[TrainingExample, ...]:
    """Return the examples of all sources, in their order, `frames` frames a clip; paths start from the folder `data`.

    ConfigError when a folder or a pattern has no video.
    """
    return tuple(example for source in sources for example in _examples(source, data, frames))


def _examples(source: UnlabelledConfig, data: Path, frames: int) -> Iterator[TrainingExample]:
    if source.manifest is None:
        for path in _files(source.files or "", data, VIDEO_SUFFIXES | (SUFFIXES if frames == 1 else frozenset())):
            yield _example(source, os.path.relpath(path, data), path, (None, None), frames)
        return
    root = None if source.root is None else data / source.root
    manifest = read_manifest(data / source.manifest, root, unlabelled=True)
    for sample in manifest.of_split(source.split):
        part = (sample.start_seconds, sample.end_seconds)
        yield _example(source, sample.path, manifest.root / sample.path, part, frames)


def _files(pattern: str, data: Path, suffixes: frozenset[str]) -> list[Path]:
    place = data / pattern
    found = files_below(place, suffixes)
    if not place.is_dir():
        matches = (Path(match) for match in sorted(glob.glob(str(place), recursive=True)))
        found = [path for path in matches if path.suffix.lower() in suffixes and not path.is_dir()]
    if not found:
        raise ConfigError(f"no video is at {place}; files takes a folder or a pattern below the data folder")
    return found


def _example(
    source: UnlabelledConfig, file: str, path: Path, part: tuple[float | None, float | None], frames: int
) -> TrainingExample:
    return TrainingExample(
        source=str(source.manifest or source.files),
        file=file,
        path=str(path),
        start_seconds=part[0],
        end_seconds=part[1],
        frames=frames,
        clips=source.clips,
        sentences=("",),
        visual_id=seed_from("file", str(path), f"{part[0]} {part[1]}"),
        label_id=None,
    )
