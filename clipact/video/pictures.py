"""Pictures as videos: an animated one, a folder of numbered ones, and an array of frames."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from clipact.errors import UsageError, VideoError
from clipact.video.clip import Timeline, Video
from clipact.video.picture_file import (
    SPOILT,
    SUFFIXES,
    GreyLevels,
    check_size,
    grey_levels,
    has_deep_grey,
    open_picture,
    read_picture,
    upright_picture,
)

# Browsers show a frame that asks for 10 ms or less, or states no time, for 100.
_HASTY_MILLISECONDS = 10
_UNSTATED_MILLISECONDS = 100


class PictureVideo(Video):
    """One picture file: a single picture is a video of one frame, an animated one of all of its frames."""

    decoder = "pillow"

    def __init__(self, file: Path | io.IOBase, *, name: str) -> None:
        self.name = name
        self._picture = open_picture(file, name=name)
        # An APNG may begin with a picture for those who cannot show the animation, of which it is no part.
        animated = getattr(self._picture, "n_frames", 1) > 1
        self._first = 1 if animated and getattr(self._picture, "default_image", False) else 0
        self._levels: GreyLevels | None = None

    def close(self) -> None:
        """Give the file back."""
        self._picture.close()

    def timeline(self) -> Timeline:
        """Its frames with the times that they ask for; a single picture is at 0 and lasts no time."""
        milliseconds, spoilt = list[int](), ""
        try:
            for number in range(self._first, getattr(self._picture, "n_frames", 1)):
                self._picture.seek(number)
                check_size(self._picture, name=self.name)
                if self._picture.format in ("AVIF", "WEBP"):
                    self._picture.load()  # before, Pillow knows the time of the frame before
                asked = self._picture.info.get("duration") or 0
                milliseconds.append(round(asked) if asked > _HASTY_MILLISECONDS else _UNSTATED_MILLISECONDS)
        except SPOILT as error:
            spoilt = str(error)
        if not milliseconds:
            raise VideoError(self.name, f"not one frame can be read: {spoilt}")
        starts = np.concatenate([[0], np.cumsum(milliseconds)]).astype(np.int64)
        return Timeline(
            ticks=starts[:-1],
            time_base=Fraction(1, 1000),
            last_ticks=milliseconds[-1] if len(milliseconds) > 1 else 0,
            notes=((f"cut short after {len(milliseconds)} frames",) if spoilt else ())
            + self._find_levels(len(milliseconds)),
        )

    def _find_levels(self, count: int) -> tuple[str, ...]:
        """Find the grey levels of all frames, and say what they are; nothing where each channel has 8 bits."""
        try:
            self._picture.seek(self._first)
            if not has_deep_grey(self._picture):
                return ()
            self._levels = grey_levels(self._frames(count))
        except SPOILT as error:
            raise VideoError(self.name, f"it cannot be decoded: {error}") from error
        return (self._levels.note,)

    def _frames(self, count: int) -> Iterator[Any]:
        for number in range(count):
            self._picture.seek(self._first + number)
            yield self._picture

    def decode(self, timeline: Timeline, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """The wanted frames, in order: an animated picture draws each frame over the one before."""
        for index in sorted(set(indices)):
            try:
                self._picture.seek(self._first + index)
                yield index, upright_picture(self._picture, self._levels)
            except SPOILT as error:
                raise VideoError(self.name, f"frame {index} cannot be decoded: {error}") from error


class PictureFolder(Video):
    """Pictures of one folder as frames, by the numbers in their names: 2.jpg comes before 10.jpg."""

    decoder = "pillow"

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._levels: GreyLevels | None = None
        try:
            self._paths = numbered_pictures(folder)
        except OSError as error:
            raise VideoError(folder, f"the folder cannot be read: {error.strerror or error}") from error
        if not self._paths:
            raise VideoError(folder, f"it is a folder without pictures ({', '.join(sorted(SUFFIXES))}); name a video")

    def close(self) -> None:
        """Nothing: each picture is open only while it is read."""

    def timeline(self) -> Timeline:
        """Its pictures, at 25 a second."""
        count, notes = len(self._paths), (NO_CLOCK, *self._find_levels())
        return Timeline(ticks=np.arange(count), time_base=Fraction(1, ASSUMED_FPS), last_ticks=1, notes=notes)

    def _find_levels(self) -> tuple[str, ...]:
        """Find the grey levels of all pictures where the first has deep grey, and say what they are."""
        with closing(open_picture(self._paths[0], name=str(self._paths[0]))) as first:
            if not has_deep_grey(first):
                return ()
        self._levels = grey_levels(self._pictures())
        return (self._levels.note,)

    def _pictures(self) -> Iterator[Any]:
        for path in self._paths:
            with closing(open_picture(path, name=str(path))) as picture:
                if has_deep_grey(picture):
                    try:
                        picture.load()
                    except SPOILT as error:
                        raise VideoError(path, f"it cannot be decoded: {error}") from error
                    yield picture

    def decode(self, timeline: Timeline, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """The wanted pictures."""
        for index in sorted(set(indices)):
            yield index, read_picture(self._paths[index], self._levels)


def numbered_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, in the order of the numbers in their names, then of the names."""
    paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    return sorted(paths, key=lambda path: ([int(number) for number in re.findall(r"\d+", path.stem)], path.name))


ASSUMED_FPS = 25  # of arrays and numbered pictures, which have no clock; said in the notes
NO_CLOCK = f"it has no clock: {ASSUMED_FPS} frames a second are assumed"


class ArrayVideo(Video):
    """An array of frames, uint8 (t, h, w, 3), RGB; one picture (h, w, 3) is a video of one frame."""

    name = "array"
    decoder = "none"

    def __init__(self, array: np.ndarray) -> None:
        frames = array[None] if array.ndim == 3 else array
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise UsageError(
                f"the array is {array.dtype} of shape {array.shape}; wanted uint8 of shape (t, h, w, 3), RGB, t >= 1"
            )
        self._frames = frames

    def close(self) -> None:
        """Nothing: the array is the caller's."""

    def timeline(self) -> Timeline:
        """Its frames, at 25 a second."""
        count = len(self._frames)
        notes = (NO_CLOCK,) if count > 1 else ()
        return Timeline(ticks=np.arange(count), time_base=Fraction(1, ASSUMED_FPS), last_ticks=1, notes=notes)

    def decode(self, timeline: Timeline, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """The frames, not copied."""
        return ((index, self._frames[index]) for index in sorted(set(indices)))
