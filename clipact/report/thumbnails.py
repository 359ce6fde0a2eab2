"""The middle frame of a sample as a small JPEG inside the page."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from clipact.errors import VideoError
from clipact.video.load import load_clip

_SIDE = 176


def thumbnails(samples: Iterable[str], data: Path | None, *, root: str = ".") -> dict[str, str]:
    """A data URI for each sample below `data`/`root` that can be read; a sample may name a part, "name@2.5-4"."""
    found: dict[str, str] = {}
    for sample in dict.fromkeys(samples):
        if data is None:
            break
        name, start, end = _span(sample)
        path = (data / root / name).resolve()
        if not path.is_relative_to(data.resolve()):  # a result is an untrusted file
            continue
        try:
            clip = load_clip(path, start, end, frames=1)
        except VideoError:
            continue
        picture = Image.fromarray(clip.frames[0])
        picture.thumbnail((_SIDE, _SIDE))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80)
        found[sample] = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return found


def _span(sample: str) -> tuple[str, float | None, float | None]:
    name, at, span = sample.rpartition("@")
    start, dash, end = span.partition("-")
    try:
        return (name, float(start), float(end) if end else None) if at and dash else (sample, None, None)
    except ValueError:
        return sample, None, None
