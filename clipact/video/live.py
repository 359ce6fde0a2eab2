"""Sources without an end: cameras and streams. A stretch of them is recorded into memory, then read like a file.

What is recorded is what came over the wire, compressed, so that a minute of a stream is a few megabytes. Nothing
here waits for ever: opening, each read and the whole recording have a limit.
"""

import io
import time
from contextlib import closing

import av

from clipact.errors import UsageError
from clipact.video.media import Media

# What counts as live, by how its name begins: device files and these protocols.
LIVE = ("/dev/video", "rtsp://", "rtsps://", "rtmp://", "rtmps://", "udp://", "rtp://", "srt://", "tcp://", "mms://")

PATIENCE_SECONDS = 10.0


def record(source: str, seconds: float | None) -> Media:
    """The first `seconds` of a live source, as a Matroska file in memory.

    UsageError without `seconds`; VideoError when nothing comes within PATIENCE_SECONDS, or less than two frames.
    """
    if seconds is None:
        raise UsageError(f"{source} has no end of its own: say where to stop, with end_seconds (--to)")
    options = {"rtsp_transport": "tcp"} if source.startswith("rtsp") else {}
    if source.startswith("/dev/video"):
        options["container_format"] = "v4l2"
    deadline = time.monotonic() + seconds + PATIENCE_SECONDS
    buffer = io.BytesIO()
    with closing(Media(source, name=source, timeout=PATIENCE_SECONDS, options=options)) as media:
        _copy_packets(media, buffer, seconds, deadline=deadline)
    return Media(buffer, name=source)


def _copy_packets(media: Media, buffer: io.BytesIO, seconds: float, *, deadline: float) -> None:
    """Write the first seconds of the stream into the buffer; what came before it broke off counts."""
    first: float | None = None
    with av.open(buffer, "w", format="matroska") as copy:
        stream = copy.add_stream_from_template(media.stream, opaque=True)
        for packet in media.packets():
            if packet.pts is None or packet.dts is None:
                continue
            shown = float(packet.pts * media.time_base)
            first = shown if first is None else first
            if shown - first >= seconds or time.monotonic() > deadline:
                break
            packet.stream = stream
            copy.mux(packet)
        if first is None:
            raise media.error(media.broken or "it ended before its first frame")
