"""Open a file with PyAV: its video stream, its packets, and its frames as upright RGB.

Every PyAV decoder reads from a `Media` and converts with an `RgbConverter`. FFmpeg's errors become VideoErrors with a
cause that a reader understands. Opening costs 3 ms; `rewind` opens again, since no seek to the start is right for every
format.
"""

import io
import re
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from jaxtyping import UInt8

from clipact.errors import VideoError

# 8K video and a little more. A header may claim 16384 x 16384 in 40 bytes: three such frames fill a gigabyte.
MAX_PIXELS = 8192 * 4352
TOO_LARGE = f"more than {MAX_PIXELS / 1e6:.1f} megapixels are not decoded; make it smaller with FFmpeg's scale filter"

# FFmpeg "plays" text files as terminal art; nobody means that.
_TEXT_FORMATS = {"tty", "bin", "xbin", "adf", "idf", "lrc"}

_FORMATS_WITH_DURATION = {"mov", "matroska", "flv", "avi"}


class Media:
    """One video stream, open for reading; to be closed.

    place       a path, an address, or a file object that can seek
    name        what messages call it
    timeout     seconds that opening, and each read, may wait: for addresses; None for files
    demuxer     the container format, where FFmpeg cannot find it out: of cameras
    notes       what is known to be odd about it before it is read
    threads     that decode; None: as FFmpeg chooses
    read_error  why reading stopped before the end; empty while it did not
    """

    def __init__(
        self,
        place: str | io.IOBase,
        *,
        name: str,
        timeout: float | None = None,
        demuxer: str | None = None,
        options: dict[str, str] | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.place = place
        self.name = name
        self.timeout = timeout
        self.notes = notes
        self.read_error = ""
        self.threads: int | None = None
        self._demuxer = demuxer
        self._container: Any
        self.stream: Any
        self._options = {"max_pixels": str(MAX_PIXELS), **(options or {})}
        self._open()

    def use_threads(self, count: int | None) -> None:
        """Decode in that many threads; None leaves it to FFmpeg, which takes one more than there are cores.

        To be said before anything is decoded.
        """
        self.threads = count
        self.context.thread_count = count or 0

    def close(self) -> None:
        """Give the file back."""
        self._container.close()

    def rewind(self) -> None:
        """Stand before the first packet again."""
        self.close()
        self._open()

    def seek(self, tick: int) -> None:
        """Stand at or before `tick`, a decoding time; how far before is the format's affair."""
        self._at_start = False
        try:
            self._container.seek(tick, stream=self.stream)
        except av.error.FFmpegError:
            self.rewind()  # neither a pipe nor every server can jump

    def packets_from_start(self) -> Iterator[av.Packet]:
        """All packets of the stream; what was read or sought before is no matter."""
        if not self._at_start:
            self.rewind()
        return self.packets()

    def packets(self) -> Iterator[av.Packet]:
        """The packets of the stream from here on, in the order of decoding, without empty ones.

        What demux ends with is empty, and so is what an AVI calls a frame that was dropped. A file that breaks off
        ends there; `read_error` then says why.
        """
        self._at_start = False
        while True:
            try:
                # Closed by hand: PyAV's generator leaks 230 bytes when it is dropped before its end (18.1).
                with closing(self._container.demux(self.stream)) as packets:
                    for packet in packets:
                        if packet.size:
                            yield packet
                            self._waits_since = time.monotonic()
            except IndexError:
                # A spoilt MPEG-TS may start a new stream half way, which PyAV does not know: its packet is not ours.
                continue
            except av.error.FFmpegError as error:
                self.read_error = self._because(error)
            return

    @property
    def context(self) -> Any:
        """The decoder of the stream (av.VideoCodecContext)."""
        return self.stream.codec_context

    @property
    def promised_seconds(self) -> tuple[float | None, float | None]:
        """How long the header says that this stream lasts, and the whole file; None where FFmpeg guesses from sizes."""
        if self.format.split(",")[0] not in _FORMATS_WITH_DURATION:
            return None, None
        whole = self._container.duration / av.time_base if self._container.duration else None
        if self.stream.duration:
            return float(self.stream.duration * self.time_base), whole
        # Matroska says it in a tag of the stream: 00:00:04.000000000.
        if told := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", self.stream.metadata.get("DURATION", "")):
            hours, minutes, seconds = map(float, told.groups())
            return 3600 * hours + 60 * minutes + seconds, whole
        return (whole if len(self._container.streams) == 1 else None), whole

    @property
    def format(self) -> str:
        """The container format, as FFmpeg names it: "mov,mp4,m4a,3gp,3g2,mj2", "avi"."""
        return str(self._container.format.name)

    @property
    def time_base(self) -> Fraction:
        """Seconds a tick."""
        base = self.stream.time_base
        if not base or base <= 0:
            raise self.error("its time base is zero, so that no frame has a time")
        return Fraction(base)

    def error(self, cause: str | Exception) -> VideoError:
        """The VideoError for this file; FFmpeg's words are put into ours."""
        return VideoError(self.name, cause if isinstance(cause, str) else self._because(cause))

    def _open(self) -> None:
        self._waits_since = time.monotonic()
        if not isinstance(self.place, str):
            self.place.seek(0)
        try:
            # Real files carry metadata that is not UTF-8 (HMDB51 has some), which is no reason to refuse their frames.
            self._container = av.open(
                self.place,
                "r",
                format=self._demuxer,
                metadata_errors="ignore",
                timeout=self.timeout,
                options=self._options,
            )
        except (av.error.FFmpegError, ValueError) as error:
            raise self.error(error) from error
        try:
            self.stream = self._video_stream()
        except VideoError:
            self.close()
            raise
        self._at_start = True
        self.stream.thread_type = "AUTO"
        self.context.thread_count = self.threads or 0

    def _video_stream(self) -> Any:
        if self.format in _TEXT_FORMATS:
            raise self.error("it is a text file, not a video")
        # A cover picture in a music file is a video stream by name only.
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in self._container.streams.video if not s.disposition & cover]
        if not streams:
            kinds = sorted({s.type for s in self._container.streams}) or ["no stream at all"]
            raise self.error(f"it has no video stream, only {', '.join(kinds)}")
        stream = streams[0]
        context = stream.codec_context
        if context is None:
            raise self.error("FFmpeg has no decoder for its codec")
        if context.width * context.height > MAX_PIXELS:
            raise self.error(f"its frames are {context.width} x {context.height}; {TOO_LARGE}")
        context.options = {"max_pixels": str(MAX_PIXELS)}  # frames may grow half way
        return stream

    def _because(self, error: Exception) -> str:
        # A read that was broken off reaches us as any error, by protocol.
        if self.timeout is not None and time.monotonic() - self._waits_since >= self.timeout:
            return f"nothing came within {self.timeout:g} seconds"
        if isinstance(error, av.error.InvalidDataError):
            return "it is not a video that FFmpeg knows, or its index is missing: cut short, or still being written?"
        return str(getattr(error, "strerror", None) or error)


# What FFmpeg's command line and torchcodec do, whichever version each of them links: bicubic where chroma must be
# interpolated (10-bit, odd sizes), its position left unspecified. PyAV's own `reformat` follows the stream's chroma
# position there, and differs from both by up to 130 of 255.
_SCALE = "flags=bicubic:in_h_chr_pos=-513:in_v_chr_pos=-513"


class RgbConverter:
    """Turns the av.VideoFrames of the video `name` into upright RGB; keeps FFmpeg's scaler while they are alike."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._graph: Any = None
        self._fits: tuple[Any, ...] = ()

    def convert(self, frame: Any) -> UInt8[np.ndarray, "h w c"]:
        """The frame as RGB, in the range and matrix that it declares, turned as its display matrix says.

        Pixels that are not square are left as they are stored: the models of this field were trained on them so.
        VideoError for colours that FFmpeg cannot convert, as a damaged header may declare them.
        """
        kind = (frame.format.name, frame.width, frame.height, frame.colorspace, frame.color_range)
        try:
            if kind != self._fits:
                self._graph, self._fits = _rgb_graph(frame), kind
            self._graph.push(frame)
            picture = self._graph.pull().to_ndarray()
        except av.error.FFmpegError as error:
            cause = f"its colours, {frame.format.name}, cannot be turned into RGB: {error.strerror}"
            raise VideoError(self.name, cause) from error
        return turn_upright(picture, display_matrix(frame))


def turn_upright(
    picture: UInt8[np.ndarray, "h w c"], matrix: tuple[int, int, int, int]
) -> UInt8[np.ndarray, "h2 w2 c"]:
    """The picture turned and mirrored by a display matrix (a, b, c, d) of quarter turns; others are left out.

    The matrix takes a stored pixel (x, y) to the shown one (a x + c y, b x + d y), y pointing down
    (ISO/IEC 14496-12, 6.2.2).
    """
    a, b, c, d = (int(np.sign(number)) for number in matrix)
    if a and d and not b and not c:
        turned = picture[::d, ::a]
    elif b and c and not a and not d:
        turned = picture.transpose(1, 0, 2)[::b, ::c]
    else:
        return picture
    return np.ascontiguousarray(turned)


def display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """The four numbers of the frame's display matrix that turn and mirror; the identity when it has none."""
    data = frame.side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return (1, 0, 0, 1)
    a, b, _, c, d, *_ = struct.unpack("<9i", bytes(data)[:36])
    return (a, b, c, d)


def _rgb_graph(frame: Any) -> Any:
    graph = Graph()
    graph.threads = 1  # a frame is small work: handing it out costs more than it saves
    steps = [
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)),
        graph.add("scale", _SCALE),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ]
    for before, after in pairwise(steps):
        before.link_to(after)
    graph.configure()
    return graph
