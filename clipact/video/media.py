"""Open a file with PyAV: its video stream and its packets.

Every PyAV decoder reads from a `Media`. FFmpeg's errors become VideoErrors with a cause that a reader understands.
Opening costs 3 ms; `rewind` opens again, since no seek to the start is right for every format.
"""

import io
import re
import time
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from clipact.errors import VideoError
from clipact.progress import ProgressBar, no_progress

# 8K video and a little more. A header may claim 16384 x 16384 in 40 bytes: three such frames fill a gigabyte.
MAX_PIXELS = 8192 * 4352
TOO_LARGE = f"more than {MAX_PIXELS / 1e6:.1f} megapixels are not decoded; make it smaller with FFmpeg's scale filter"

# FFmpeg "plays" text files as terminal art; nobody means that.
_TEXT_FORMATS = {"tty", "bin", "xbin", "adf", "idf", "lrc"}

_FORMATS_WITH_DURATION = {"mov", "matroska", "flv", "avi"}

# Streams without a container: FFmpeg invents their clock, at 25 frames a second whatever the stream says.
_RAW_FORMATS = {"h264", "hevc", "vvc", "mpegvideo", "m4v", "h263", "h261", "vc1", "cavsvideo", "avs2", "avs3", "obu"}

# Boxes of MP4 (ISO/IEC 14496-12): how a media segment begins, which has no header; and what announces such segments.
_SEGMENT_BOXES = (b"styp", b"moof", b"sidx")
_ANNOUNCES_SEGMENTS = b"mvex"
_HEAD_BYTES = 64 * 2**10


class Media:
    """One video stream, open for reading; to be closed.

    place       a path, an address, or a file object that can seek
    name        what messages call it
    timeout     seconds that opening, and each read, may wait: for addresses; None for files
    demuxer     the container format, where FFmpeg cannot find it out: of cameras
    notes       what is known to be odd about it before it is read
    threads     that decode; None: as FFmpeg chooses
    progress    shows what lasts while it is read
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
        self.progress: ProgressBar = no_progress
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
    def is_raw(self) -> bool:
        """Whether it is a bare stream of a codec, without a container and so without time stamps."""
        return self.format in _RAW_FORMATS

    @property
    def rate_fps(self) -> Fraction | None:
        """The frame rate that the stream itself states where it is raw, else the container's; None when unknown."""
        if self.is_raw and self.context.framerate:
            return Fraction(self.context.framerate)
        return self.stream.average_rate or self.stream.guessed_rate

    @property
    def promise_counts_from_zero(self) -> bool:
        """Whether `promised_seconds` tell when the last frame ends on the file's clock, not how long frames last."""
        return self.format.startswith("matroska") or self.format == "avi"

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

    def why_read_in_order(self, packet: av.Packet) -> str:
        """Why the file must be decoded from its beginning, where the packet carries what all later ones need; or "".

        Demuxers send it once, with whichever packet is read next: seeking would lose it. VideoError when the packet is
        encrypted.
        """
        if packet.has_sidedata("encryption_info"):
            raise self.error("its frames are encrypted (Common Encryption, DRM); decrypt it first")
        if packet.has_sidedata("palette"):
            return "its palette is sent apart from its frames"
        if packet.has_sidedata("new_extradata"):
            settings = bytes(packet.get_sidedata("new_extradata"))
            if settings != self.context.extradata:  # FLV repeats the same, which changes nothing
                return "its decoder's settings change half way"
        return ""

    def no_frames(self) -> VideoError:
        """The VideoError for a file in which there is no frame at all."""
        if self.read_error:
            return self.error(self.read_error)
        head = self._head() if self.format.startswith("mov") else b""
        if _ANNOUNCES_SEGMENTS in head and b"moof" not in head:
            return self.error(
                "it is the initialisation segment of a DASH or HLS stream, a header without frames; put it before "
                "the media segments: cat init.mp4 segment*.m4s > whole.mp4"
            )
        return self.error("not one frame can be read")

    def _head(self) -> bytes:
        """The first bytes of a file or file object; none of an address, which is not asked twice."""
        try:
            if not isinstance(self.place, str):
                self.place.seek(0)
                return bytes(self.place.read(_HEAD_BYTES))
            if self.timeout is not None:
                return b""
            with Path(self.place.removeprefix("file:")).open("rb") as file:
                return file.read(_HEAD_BYTES)
        except (OSError, ValueError):
            return b""

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
        # Sound is not read: where it is missing, some demuxers end although the video goes on.
        for other in self._container.streams:
            if other.index != self.stream.index:
                other.discard = av.stream.Discard.all
        self.stream.thread_type = "AUTO"
        self.context.thread_count = self.threads or 0

    def _video_stream(self) -> Any:
        if self.format in _TEXT_FORMATS:
            raise self.error("it is a text file, not a video")
        # A cover picture in a music file is a video stream by name only.
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in self._container.streams.video if not s.disposition & cover]
        if not streams:
            kinds = {"a cover picture" if s.type == "video" else str(s.type) for s in self._container.streams}
            raise self.error(f"it has no video stream, only {' and '.join(sorted(kinds)) or 'a header'}")
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
            if self._head()[4:8] in _SEGMENT_BOXES:
                return (
                    "it is a media segment of a DASH or HLS stream, which its initialisation segment must precede: "
                    "cat init.mp4 segment*.m4s > whole.mp4"
                )
            return "it is not a video that FFmpeg knows, or its index is missing: cut short, or still being written?"
        return str(getattr(error, "strerror", None) or error)
