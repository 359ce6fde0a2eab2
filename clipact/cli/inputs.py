"""Which videos a person means by the words on the command line: files, folders, globs."""

import glob
from collections.abc import Iterable
from pathlib import Path

from clipact.errors import UsageError

VIDEO_SUFFIXES = frozenset(
    ".3gp .asf .avi .divx .flv .gif .m2ts .m4v .mjpeg .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()
)


def expand_videos(words: Iterable[str]) -> list[str]:
    """The sources that the words name, in order: a folder gives the videos below it, a glob those it matches.

    A word that names nothing is kept, so that its absence is reported like any other unreadable video.
    """
    found: list[str] = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
            # A folder without videos may hold the frames of one as pictures: the video room decides.
            found += [str(p) for p in inside] or [word]
        elif glob.has_magic(word) and not path.exists():
            found += sorted(glob.glob(word, recursive=True)) or [word]
        else:
            found.append(word)
    if not found:
        raise UsageError("no video was named: give files, folders or patterns such as 'clips/*.mp4'")
    return found
