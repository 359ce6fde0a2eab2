"""Inspect a video: its format, size, rate and length, and what is unusual about it."""

import dataclasses
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipact.progress import ProgressBar, no_progress
from clipact.video.clip import FramesDifferError, Timeline, Video
from clipact.video.decode_pyav import PyavVideo, feed, has_own_orientation
from clipact.video.decode_sequential import SequentialVideo
from clipact.video.guard import decoder_errors
from clipact.video.ledger_notes import note_uneven
from clipact.video.media import Media
from clipact.video.open_source import VideoSource, open_source, source_name
from clipact.video.picture_notes import note_hdr, note_lines, note_pixel_shape
from clipact.video.rgb import UPRIGHT, display_matrix

_IGNORED = ("its stream, not its container, says that it is turned (an SEI message): it is shown as stored",)
_MATRIX_DEGREES = {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """The facts of one source.

    width, height     as shown, after rotation
    rotation_degrees  clockwise, from the file's metadata, already carried out in the frames that are handed out
    rate_fps          the mean; None for a single picture
    key_frames        None where only decoding all frames tells which there are, or where every picture is one
    odd               what may surprise, in sentences; empty for a plain file
    """

    source: str
    container: str
    codec: str
    pixel_format: str
    width: int
    height: int
    rotation_degrees: int
    rate_fps: float | None
    duration_seconds: float | None
    frames: int
    key_frames: int | None
    odd: tuple[str, ...] = ()

    def to_table(self) -> dict[str, Any]:
        """A plain dict, for JSON."""
        return dataclasses.asdict(self)


def inspect(source: VideoSource, *, end_seconds: float | None = None, progress: ProgressBar = no_progress) -> VideoInfo:
    """The facts of a source; VideoError as for `load_clip`.

    `end_seconds` is where a live source stops; `progress` shows how its packets are read.
    """
    with decoder_errors(source_name(source)), closing(open_source(source, end_seconds=end_seconds)) as opened:
        if not isinstance(opened, Media):
            return _inspect_pictures(opened)
        opened.progress = progress
        return _inspect_media(opened)


def _inspect_pictures(video: Video) -> VideoInfo:
    timeline = video.timeline()
    ((_, first),) = video.decode(timeline, [0])
    return VideoInfo(
        source=video.name,
        container="pictures",
        codec=video.decoder,
        pixel_format="rgb24",
        width=first.shape[1],
        height=first.shape[0],
        rotation_degrees=0,
        rate_fps=_mean_rate(timeline),
        duration_seconds=timeline.duration_seconds or None,
        frames=len(timeline),
        key_frames=None,
        odd=timeline.notes,
    )


def _inspect_media(media: Media) -> VideoInfo:
    lies: tuple[str, ...] = ()
    try:
        timeline = PyavVideo(media).timeline()
    except FramesDifferError as difference:
        timeline = SequentialVideo(media).timeline()
        lies = (f"{difference}: all frames are decoded and counted",)
    first = _first_frame(media)
    ignored = has_own_orientation(media, next(media.packets_from_start()))
    a, b, c, d = (int(np.sign(number)) for number in (UPRIGHT if ignored else display_matrix(first)))
    mirrored = a * d - b * c < 0
    degrees = _MATRIX_DEGREES.get((-a, -b) if mirrored else (a, b), 0)  # mirrored left to right, then turned
    turned = degrees % 180 == 90
    return VideoInfo(
        source=media.name,
        container=media.format,
        codec=media.context.codec.name if media.context.codec else media.context.name,
        pixel_format=first.format.name,
        width=first.height if turned else first.width,
        height=first.width if turned else first.height,
        rotation_degrees=degrees,
        rate_fps=_mean_rate(timeline),
        duration_seconds=timeline.duration_seconds or None,
        frames=len(timeline),
        key_frames=len(timeline.keys) or None,
        odd=(
            *timeline.notes,
            *lies,
            *_IGNORED[:ignored],
            *_odd_picture(first, media, degrees, mirrored=mirrored),
            *_odd_times(timeline),
        ),
    )


def _first_frame(media: Media) -> Any:
    media.rewind()
    for packet in media.packets():
        for frame in feed(media.context, packet):
            return frame
    for frame in feed(media.context, None):
        return frame
    raise media.error("not one frame can be decoded")


def _odd_picture(frame: Any, media: Media, degrees: int, *, mirrored: bool) -> list[str]:
    odd = []
    if degrees:
        odd.append(f"stored turned: it is shown {degrees} degrees clockwise")
    if mirrored:
        odd.append("stored mirrored")
    # As the ledgers of clips say it.
    return odd + [*note_pixel_shape(media), *note_lines(frame), *note_hdr(frame.color_trc)]


def _odd_times(timeline: Timeline) -> list[str]:
    odd = []
    start = float(int(timeline.ticks[0]) * timeline.time_base)
    if abs(start) > 1:
        odd.append(f"its clock starts at {start:.3f} s; seconds here count from the first frame")
    steps = np.diff(timeline.ticks) * float(timeline.time_base)
    # Containers that count milliseconds round each step by one.
    if len(steps) > 1 and steps.max() - steps.min() > max(0.0021, 0.02 * float(np.median(steps))):
        odd.append(f"variable frame rate: from {1 / steps.max():.2f} to {1 / steps.min():.2f} frames a second")
    odd.extend(note_uneven(timeline, range(len(timeline))))
    keys = np.array([key.tick for key in timeline.keys])
    if len(keys):
        gaps = np.diff([*keys, int(timeline.ticks[-1]) + timeline.last_ticks]) * float(timeline.time_base)
        if gaps.max() > 20:
            odd.append(f"up to {gaps.max():.0f} s without a key frame: a single frame takes long to reach")
    return odd


def _mean_rate(timeline: Timeline) -> float | None:
    """Frames a second, to 3 decimals, or 3 digits where it is less than one."""
    if not timeline.duration_seconds:
        return None
    rate = len(timeline) / timeline.duration_seconds
    return round(rate, 3) if rate >= 1 else float(f"{rate:.3g}")
