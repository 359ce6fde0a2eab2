"""Sources without an end: cameras and streams. A stretch of them is recorded into memory, then read like a file.

What is recorded is what came over the wire, compressed, so that a minute of a stream is a few megabytes. Nothing
here waits for ever: opening, each read and the whole recording have a limit.
"""

import io
import time
from contextlib import closing

import av

from clipact.errors import UsageError, VideoError
from clipact.video.media import Media

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
        raise media.error(media.broken or "it ended before its first frame")
    recorded = end - first
    return recorded, "" if recorded >= seconds else media.broken or cause
