"""What may be named as a video, and how each is opened. To add a kind: a line in SOURCES."""

import io
import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np

from clipact.errors import UsageError, VideoError
from clipact.video.clip import Video
from clipact.video.media import Media
from clipact.video.picture_file import HEAD_BYTES, is_picture
from clipact.video.pictures import ArrayVideo, PictureFolder, PictureVideo

VIDEO_SUFFIXES = frozenset(
    ".3gp .asf .avi .divx .flv .gif .m2ts .m4v .mjpeg .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()
)


def files_below(folder: Path, suffixes: frozenset[str] = VIDEO_SUFFIXES) -> list[Path]:
    """The files of these suffixes in a folder and below it, in order; [] for one without, and for what is no folder."""
    if not _is_folder(folder):
        return []
    return [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in suffixes and _is_there(path)]


def _is_there(path: Path) -> bool:
    """Whether a folder has it as a file; a link that leads nowhere is one that cannot be read."""
    return path.is_file() or (path.is_symlink() and not path.exists())


# What counts as live, by how its name begins: device files and these protocols.
LIVE = ("/dev/video", "rtsp://", "rtsps://", "rtmp://", "rtmps://", "udp://", "rtp://", "srt://", "tcp://", "mms://")

PATIENCE_SECONDS = 10.0


def record(source: str, seconds: float | None) -> Media:
    """The first `seconds` of a live source, as a Matroska file in memory.

    A stream that ends or breaks off earlier, or comes slower than it is to be played, gives what came, and a note.
    UsageError without `seconds`; VideoError when nothing comes within PATIENCE_SECONDS, or what comes cannot be kept.
    """
    if seconds is None:
        raise UsageError(f"{source} has no end of its own: say where to stop, with end_seconds (--to)")
    options = {"rtsp_transport": "tcp"} if source.startswith("rtsp") else {}
    demuxer = "v4l2" if source.startswith("/dev/video") else None
    deadline = time.monotonic() + seconds + PATIENCE_SECONDS
    buffer = io.BytesIO()
    with closing(Media(source, name=source, timeout=PATIENCE_SECONDS, demuxer=demuxer, options=options)) as media:
        try:
            recorded, cause = _copy_packets(media, buffer, seconds, deadline=deadline)
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(source, f"what it sends cannot be recorded: {error}") from error
    notes = (f"recorded {recorded:.1f} of {seconds:g} s: {cause}",) if cause else ()
    return Media(buffer, name=source, notes=notes)


def _copy_packets(media: Media, buffer: io.BytesIO, seconds: float, *, deadline: float) -> tuple[float, str]:
    """Write the first seconds of the stream into the buffer; how many came, and why no more (empty: all did)."""
    first: float | None = None
    end = 0.0
    cause = "it ended"
    with av.open(buffer, "w", format="matroska") as copy:
        stream = copy.add_stream_from_template(media.stream, opaque=True)
        for packet in media.packets():
            if packet.pts is None or packet.dts is None:
                continue
            shown = float(packet.pts * media.time_base)
            first = shown if first is None else first
            if shown - first >= seconds:
                cause = ""
                break
            if time.monotonic() > deadline:
                cause = "it comes slower than it is shown"
                break
            end = max(end, shown + float((packet.duration or 0) * media.time_base))
            packet.stream = stream
            copy.mux(packet)
    if first is None:
        raise media.error(media.read_error or "it ended before its first frame")
    recorded = end - first
    return recorded, "" if recorded >= seconds else media.read_error or cause


VideoSource = str | Path | bytes | io.IOBase | np.ndarray

# Raw streams of JPEGs begin as one picture does.
_JPEG_STREAMS = {".mjpeg", ".mjpg"}

# Standard input up to this many bytes stays in memory, more goes to a temporary file.
_SPOOL_BYTES = 64 * 2**20


def open_source(source: VideoSource, *, end_seconds: float | None = None) -> Video | Media:
    """The source, open: Media where a decoder is still to be chosen, a Video where there is nothing to choose.

    VideoError when it cannot be opened; UsageError for what cannot be a source. `end_seconds` is where live sources
    stop.
    """
    _, opens = SOURCES[source_kind(source)]
    return opens(source, end_seconds)


def source_kind(source: VideoSource) -> str:
    """Which of SOURCES it is; UsageError for what cannot be one."""
    for kind, (recognises, _) in SOURCES.items():
        if recognises(source):
            return kind
    raise UsageError(f"a {type(source).__name__} cannot be a video; known: {', '.join(SOURCES)}")


def _open_path(source: str | Path, end_seconds: float | None) -> Video | Media:
    path = Path(source)
    head = read_head(path)
    with path.open("rb") as file:
        picture = is_picture(head, file)
    if picture and path.suffix.lower() not in _JPEG_STREAMS:
        return PictureVideo(path, name=str(path))
    # The prefix keeps FFmpeg from reading "a:b.mp4" as protocol "a".
    return Media(f"file:{path}", name=str(path))


def source_name(source: VideoSource) -> str:
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
    head = source.read(HEAD_BYTES)
    source.seek(0)
    if not head:
        raise VideoError(name, "it is empty")
    if not isinstance(head, bytes):
        raise UsageError(f"{name} is open as text; open it with mode 'rb'")
    picture = is_picture(head, source)
    source.seek(0)
    return PictureVideo(source, name=name) if picture else Media(source, name=name)


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
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        raise VideoError(path, "no such file") from None
    except (OSError, ValueError) as error:
        raise VideoError(path, getattr(error, "strerror", None) or str(error)) from error
    if not head:
        raise VideoError(path, "the file is empty")
    return head


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
    try:
        return isinstance(source, str | Path) and Path(source).is_dir()
    except (OSError, ValueError):  # a name that is too long, or holds a NUL: opening it says so
        return False


FILE = "file"

# In this order: the first that recognises the source opens it.
SOURCES: dict[str, tuple[Callable[[Any], bool], Callable[[Any, float | None], Video | Media]]] = {
    "NumPy array": (lambda source: isinstance(source, np.ndarray), lambda source, end: ArrayVideo(source)),
    "bytes": (lambda source: isinstance(source, bytes), _open_bytes),
    "file object": (lambda source: isinstance(source, io.IOBase), _open_file_object),
    "standard input (-)": (lambda source: isinstance(source, str) and source == "-", _open_standard_input),
    "camera or live stream": (lambda source: _named_as(source, LIVE), record),
    "http address": (lambda source: _named_as(source, ("http://", "https://")), _open_address),
    "folder of numbered pictures": (_is_folder, lambda source, end: PictureFolder(Path(source))),
    FILE: (lambda source: isinstance(source, str | Path), _open_path),
}
