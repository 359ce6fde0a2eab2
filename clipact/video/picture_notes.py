"""What is unusual about the pictures of a video, in sentences: their light, their lines, the shape of their pixels."""

from typing import Any

from clipact.video.media import Media
from clipact.video.tone_mapping import HDR_TRANSFERS

NOT_SQUARE = "its pixels are not square ({}:{}); models see them as stored"
INTERLACED = "interlaced: fast motion shows combs"
_PROGRESSIVE = (0, 1)  # unknown, and so


def note_hdr(transfer: int) -> tuple[str, ...]:
    """A note when the transfer characteristics (ITU-T H.273) are those of high dynamic range."""
    if transfer not in HDR_TRANSFERS:
        return ()
    return (f"high dynamic range ({HDR_TRANSFERS[transfer]}): its tones are mapped to those of ordinary video",)


def note_pixel_shape(media: Media) -> tuple[str, ...]:
    """A note when pixels are not square."""
    aspect = media.context.sample_aspect_ratio or media.stream.sample_aspect_ratio
    return (NOT_SQUARE.format(aspect.numerator, aspect.denominator),) if aspect and aspect != 1 else ()


def note_lines(frame: Any) -> tuple[str, ...]:
    """A note when the lines of a frame were recorded as two fields."""
    return (INTERLACED,) if frame.interlaced_frame else ()


def note_header(media: Media) -> tuple[str, ...]:
    """The notes that the header of a stream gives, of which no frame was decoded here."""
    lines = () if media.context.field_order in _PROGRESSIVE else (INTERLACED,)
    return note_pixel_shape(media) + lines
