"""Frames that are in memory already: a NumPy array as a video."""

import io
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, ImageSequence

from clipact.errors import UsageError, VideoError
from clipact.video.clip import Timeline, Video
from clipact.video.media import MAX_PIXELS, TOO_LARGE

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

# What browsers show a GIF frame for that asks for no time at all.
_SHORTEST_MILLISECONDS = 10
_UNSTATED_MILLISECONDS = 100

# What Pillow raises about spoilt files: its readers trust what they read.
_SPOILT = (
    ArithmeticError,
    AttributeError,
    Image.DecompressionBombError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)


class PictureVideo(Video):
    """One picture file: a single picture is a video of one frame, an animated one of all of its frames."""

    decoder = "pillow"

    def __init__(self, file: Path | io.IOBase, *, name: str) -> None:
        self.name = name
        self._picture = open_picture(file, name=name)

    def close(self) -> None:
        """Give the file back."""
        self._picture.close()

    def timeline(self) -> Timeline:
        """Its frames with the times that they ask for; a single picture is at 0 and lasts no time."""
        milliseconds, spoilt = [], ""
        try:
            for frame in ImageSequence.Iterator(self._picture):
                _check_size(frame, name=self.name)
                if self._picture.format == "WEBP":
                    frame.load()  # before, Pillow knows the time of the frame before
                asked = frame.info.get("duration") or _UNSTATED_MILLISECONDS
                milliseconds.append(max(_SHORTEST_MILLISECONDS, round(asked)))
        except _SPOILT as error:
            spoilt = str(error)
        if not milliseconds:
            raise VideoError(self.name, f"not one frame can be read: {spoilt}")
        starts = np.concatenate([[0], np.cumsum(milliseconds)]).astype(np.int64)
        return Timeline(
            ticks=starts[:-1],
            time_base=Fraction(1, 1000),
            last_ticks=milliseconds[-1] if len(milliseconds) > 1 else 0,
            notes=(f"cut short after {len(milliseconds)} frames",) if spoilt else (),
        )

    def decode(self, timeline: Timeline, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """The wanted frames, in order: an animated picture draws each frame over the one before."""
        for index in sorted(set(indices)):
            try:
                self._picture.seek(index)
                yield index, upright_picture(self._picture)
            except _SPOILT as error:
                raise VideoError(self.name, f"frame {index} cannot be decoded: {error}") from error


class PictureFolder(Video):
    """Pictures of one folder as frames, by the numbers in their names: 2.jpg comes before 10.jpg."""

    decoder = "pillow"

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
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
        count = len(self._paths)
        return Timeline(ticks=np.arange(count), time_base=Fraction(1, ASSUMED_FPS), last_ticks=1, notes=(NO_CLOCK,))

    def decode(self, timeline: Timeline, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """The wanted pictures."""
        for index in sorted(set(indices)):
            yield index, read_picture(self._paths[index])


def numbered_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, in the order of the numbers in their names, then of the names."""
    paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    return sorted(paths, key=lambda path: ([int(number) for number in re.findall(r"\d+", path.stem)], path.name))


def read_picture(path: Path) -> UInt8[np.ndarray, "h w c"]:
    """The picture in a file as RGB, the first frame of an animated one; VideoError when it cannot be read."""
    with closing(open_picture(path, name=str(path))) as picture:
        try:
            return upright_picture(picture)
        except _SPOILT as error:
            raise VideoError(path, f"it cannot be decoded: {error}") from error


def open_picture(file: Path | io.IOBase, *, name: str) -> Any:
    """The picture, not decoded yet; VideoError when it is none, or has more pixels than are decoded at most."""
    try:
        picture: Any = Image.open(cast(Any, file), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise VideoError(name, TOO_LARGE) from error
    except _SPOILT as error:
        raise VideoError(name, f"it is not a picture that can be read: {error}") from error
    try:
        _check_size(picture, name=name)
    except VideoError:
        picture.close()
        raise
    return picture


def _check_size(picture: Any, *, name: str) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise VideoError(name, f"it is {picture.width} x {picture.height}; {TOO_LARGE}")


def upright_picture(picture: Any) -> UInt8[np.ndarray, "h w c"]:
    """The picture as RGB, turned as its EXIF orientation says."""
    return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


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
