"""What may be named as a video, and how each is opened. To add a kind: a line in SOURCES."""

import io
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clipact.errors import UsageError, VideoError
from clipact.video.arrays import ArrayVideo
from clipact.video.live import LIVE, PATIENCE_SECONDS, record
from clipact.video.media import Media
from clipact.video.pictures import PictureFolder, PictureVideo
from clipact.video.video import Video

Source = str | Path | bytes | io.IOBase | np.ndarray

# How picture files begin. What a file is called does not matter, but for raw streams of JPEGs, which begin alike.
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*")
_JPEG_STREAMS = {".mjpeg", ".mjpg"}

# Standard input up to this many bytes stays in memory, more goes to a temporary file.
_SPOOL_BYTES = 64 * 2**20


def open_source(source: Source, *, end_seconds: float | None = None) -> Video | Media:
    """The source, open: Media where a decoder is still to be chosen, a Video where there is nothing to choose.

    VideoError when it cannot be opened; UsageError for what cannot be a source. `end_seconds` is where live sources
    stop.
    """
    for recognises, opens in SOURCES.values():
        if recognises(source):
            return opens(source, end_seconds)
    raise UsageError(f"a {type(source).__name__} cannot be a video; known: {', '.join(SOURCES)}")


def _open_path(source: str | Path, end_seconds: float | None) -> Video | Media:
    path = Path(source)
    head = read_head(path)
    if looks_like_picture(head) and path.suffix.lower() not in _JPEG_STREAMS:
        return PictureVideo(path, name=str(path))
    # The prefix keeps FFmpeg from reading "a:b.mp4" as protocol "a".
    return Media(f"file:{path}", name=str(path))


def source_name(source: Source) -> str:
    """What messages and the ledger call a source."""
    if isinstance(source, str | Path):
        return "standard input" if source == "-" else str(source)
    if isinstance(source, bytes):
        return f"{len(source)} bytes"
    return ArrayVideo.name if isinstance(source, np.ndarray) else str(getattr(source, "name", None) or "file object")


def _open_file_object(source: Any, end_seconds: float | None, *, name: str | None = None) -> Video | Media:
    name = name or source_name(source)
    if not source.seekable():
        return _open_spooled(source, name=name)
    source.seek(0)
    head = source.read(16)
    source.seek(0)
    if not head:
        raise VideoError(name, "it is empty")
    if not isinstance(head, bytes):
        raise UsageError(f"{name} is open as text; open it with mode 'rb'")
    return PictureVideo(source, name=name) if looks_like_picture(head) else Media(source, name=name)


def _open_bytes(source: bytes, end_seconds: float | None) -> Video | Media:
    return _open_file_object(io.BytesIO(source), end_seconds, name=source_name(source))


def _open_standard_input(source: str, end_seconds: float | None) -> Video | Media:
    return _open_spooled(sys.stdin.buffer, name=source_name(source))


def _open_address(source: str, end_seconds: float | None) -> Video | Media:
    return Media(source, name=source, timeout=PATIENCE_SECONDS)


def read_head(path: Path) -> bytes:
    """The first bytes of a file; a VideoError that says what is wrong with it before a decoder is asked."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe waits for who writes to it
            raise VideoError(path, "it is a pipe or a device, not a file; feed it to standard input and name it -")
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        raise VideoError(path, "no such file") from None
    except (OSError, ValueError) as error:
        raise VideoError(path, getattr(error, "strerror", None) or str(error)) from error
    if not head:
        raise VideoError(path, "the file is empty")
    return head


def looks_like_picture(head: bytes) -> bool:
    """Whether these first 16 bytes begin a picture that Pillow reads."""
    return head.startswith(_MAGIC) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")


def _open_spooled(stream: Any, *, name: str) -> Video | Media:
    """What the stream holds, read to its end and put where it can be sought in."""
    spooled = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - lives as long as the video
    try:
        shutil.copyfileobj(stream, spooled)
        opened = _open_file_object(spooled, None, name=name)
    except BaseException:
        spooled.close()
        raise
    weakref.finalize(opened, spooled.close)
    return opened


def _named_as(source: Any, starts: tuple[str, ...]) -> bool:
    return isinstance(source, str) and source.startswith(starts)


def _is_folder(source: Any) -> bool:
    return isinstance(source, str | Path) and Path(source).is_dir()


# In this order: the first that recognises the source opens it.
SOURCES: dict[str, tuple[Callable[[Any], bool], Callable[[Any, float | None], Video | Media]]] = {
    "NumPy array": (lambda source: isinstance(source, np.ndarray), lambda source, end: ArrayVideo(source)),
    "bytes": (lambda source: isinstance(source, bytes), _open_bytes),
    "file object": (lambda source: isinstance(source, io.IOBase), _open_file_object),
    "standard input (-)": (lambda source: isinstance(source, str) and source == "-", _open_standard_input),
    "camera or live stream": (lambda source: _named_as(source, LIVE), record),
    "http address": (lambda source: _named_as(source, ("http://", "https://")), _open_address),
    "folder of numbered pictures": (_is_folder, lambda source, end: PictureFolder(Path(source))),
    "file": (lambda source: isinstance(source, str | Path), _open_path),
}
