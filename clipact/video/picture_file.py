"""Read one picture file with Pillow: recognise it, open it, and convert its frames to upright RGB."""

import io
import struct
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, features

from clipact.errors import VideoError
from clipact.video.media import MAX_PIXELS, TOO_LARGE

SUFFIXES = frozenset(".avif .bmp .gif .heic .heif .hif .jpeg .jpg .png .tif .tiff .webp".split())
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

HEAD_BYTES = 64
"""How many bytes `is_picture` looks at first."""

# How picture files begin. What a file is called does not matter.
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*")

# ISO/IEC 23008-12, annex B, and the AV1 Image File Format: brands of still pictures and of sequences of them. "mif1"
# says only that there is a picture, of either codec.
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2"})

# What Pillow raises about spoilt files: its readers trust what they read.
SPOILT = (
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


def is_picture(head: bytes, file: Any) -> bool:
    """Whether a file is a picture that Pillow reads.

    An AVIF sequence is one; a HEIF file whose pictures are in a track, as those of a video are, is none.

    Args:
        head: Its first HEAD_BYTES.
        file: It, open as bytes and able to seek: of HEIF the boxes are looked through.
    """
    if head.startswith(_MAGIC) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return True
    codec = _heif_codec(head)
    return codec == "avif" or (codec == "heif" and _has_no_track(file))


def _heif_codec(head: bytes) -> Literal["avif", "heif"] | None:
    """Which library reads the pictures of an ISO base media file that begins so; None for a video."""
    if head[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(head[:4], "big"), len(head))
    major, others = head[8:12], {head[place : place + 4] for place in range(16, end - 3, 4)}
    if major in _AVIF_BRANDS or (major in (b"mif1", b"mif2") and others & _AVIF_BRANDS):
        return "avif"
    return "heif" if major in _HEIF_BRANDS else None


def _has_no_track(file: Any) -> bool:
    """Whether there is no "moov" among the boxes of the file."""
    place, boxes = 0, 0
    while boxes < 64:
        file.seek(place)
        header = file.read(16)
        if len(header) < 8:
            break
        size = int.from_bytes(header[:4], "big")
        if header[4:8] == b"moov":
            return False
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        if size < 8:  # 0: to the end of the file
            break
        place, boxes = place + size, boxes + 1
    return True


def open_picture(file: Path | io.IOBase, *, name: str) -> Any:
    """Open a picture, not decoded yet, as a PIL.Image.Image.

    Raises:
        VideoError: It is none, has more pixels than are decoded at most, or the library for it is missing.
    """
    codec = _heif_codec(_read_head(file))
    try:
        picture: Any = _open_heif(file, name=name) if codec == "heif" else Image.open(cast(Any, file), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise VideoError(name, TOO_LARGE) from error
    except SPOILT as error:
        if codec == "avif" and not features.check("avif"):
            cause = "it is an AVIF picture; Pillow reads these from 11.3 on: run `pip install -U 'pillow>=11.3'`"
            raise VideoError(name, cause) from error
        raise VideoError(name, f"it is not a picture that can be read: {error}") from error
    try:
        check_size(picture, name=name)
    except VideoError:
        picture.close()
        raise
    return picture


def _read_head(file: Path | io.IOBase) -> bytes:
    if isinstance(file, Path):
        try:
            with file.open("rb") as opened:
                return opened.read(HEAD_BYTES)
        except OSError:
            return b""  # opening says what is wrong
    head: bytes = cast(Any, file).read(HEAD_BYTES)
    file.seek(0)
    return head


def _open_heif(file: Path | io.IOBase, *, name: str) -> Any:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        cause = "it is a HEIC picture, which needs pillow-heif; run `pip install 'clipact[heif]'`"
        raise VideoError(name, cause) from error
    return cast(Any, HeifImageFile)(file)


def check_size(picture: Any, *, name: str) -> None:
    """Raise a VideoError for more pixels than are decoded at most."""
    if picture.width * picture.height > MAX_PIXELS:
        raise VideoError(name, f"it is {picture.width} x {picture.height}; {TOO_LARGE}")


@dataclass(frozen=True)
class GreyLevels:
    """Which values of a picture with one deep channel are black and white."""

    black: float
    white: float

    @property
    def note(self) -> str:
        """The sentence that says so."""
        if (self.black, self.white) == (0, _WHITE_16_BITS):
            return "its grey values have 16 bits: they are divided by 257"
        return f"its grey values, {self.black:g} to {self.white:g}, are spread over black to white"


_WHITE_16_BITS = 65535
_SIXTEEN_BITS = GreyLevels(0.0, float(_WHITE_16_BITS))


def has_deep_grey(picture: Any) -> bool:
    """Whether it has one channel of more than 8 bits."""
    return picture.mode == "F" or picture.mode.startswith("I")


def grey_levels(pictures: Iterable[Any]) -> GreyLevels:
    """Return the levels that are common to these pictures with deep grey, which are decoded for it where needed.

    Those of 16 bits, and integers in their range, go from 0 to 65,535, as FFmpeg's gray16 does; floats and other
    integers from the least to the greatest that occurs.
    """
    low, high, is_float = np.inf, -np.inf, False
    for picture in pictures:
        if picture.mode.startswith("I;16"):
            continue
        values = np.asarray(picture)
        is_float = is_float or picture.mode == "F"
        values = values[np.isfinite(values)]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if low > high or (not is_float and low >= 0 and high <= _WHITE_16_BITS):
        return _SIXTEEN_BITS
    return GreyLevels(low, high)


def upright_picture(picture: Any, levels: GreyLevels | None = None) -> UInt8[np.ndarray, "h w c"]:
    """Return the picture as RGB, turned as its EXIF orientation says.

    Args:
        picture: A PIL.Image.Image.
        levels: Of deep grey; by default those of this picture alone.
    """
    if has_deep_grey(picture):
        picture = _eight_bits(picture, levels or grey_levels([picture]))
    return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


def _eight_bits(picture: Any, levels: GreyLevels) -> Image.Image:
    span = levels.white - levels.black
    values = np.nan_to_num(np.asarray(picture).astype(np.float64), nan=levels.black)
    shown = np.clip((values - levels.black) * (255 / span if span else 0), 0, 255)
    found = Image.fromarray(np.rint(shown).astype(np.uint8))
    found.info, exif = picture.info, picture.getexif()
    found.getexif().update(exif)
    return found


def read_picture(path: Path, levels: GreyLevels | None = None) -> UInt8[np.ndarray, "h w c"]:
    """Return the picture in a file as RGB, the first frame of an animated one; VideoError when it cannot be read."""
    with closing(open_picture(path, name=str(path))) as picture:
        try:
            return upright_picture(picture, levels)
        except SPOILT as error:
            raise VideoError(path, f"it cannot be decoded: {error}") from error
