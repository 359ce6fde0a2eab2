"""Which files are video by their names; none of them is opened."""

from pathlib import Path

VIDEO_SUFFIXES = frozenset(
    ".3gp .asf .avi .divx .flv .gif .m2ts .m4v .mjpeg .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()
)


def files_below(folder: Path, suffixes: frozenset[str] = VIDEO_SUFFIXES) -> list[Path]:
    """The files of these suffixes in a folder and below it, in order; [] for one without, and for what is no folder."""
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in suffixes and _is_there(path)]


def _is_there(path: Path) -> bool:
    """Whether a folder has it as a file; a link that leads nowhere is one that cannot be read."""
    return path.is_file() or (path.is_symlink() and not path.exists())
