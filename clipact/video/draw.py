"""Draw the frames of a clip, and maps over them."""

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from clipact.video.clip import Clip

_MARGIN_PIXELS = 6
_TEXT_PIXELS = 18


def draw_strip(clip: Clip, *, columns: int = 8) -> Image.Image:
    """The frames of the clip, at their size, `columns` a row, "#index  seconds" under each."""
    count, height, width, _ = clip.frames.shape
    columns = min(columns, count)
    cell_width, cell_height = width + _MARGIN_PIXELS, height + _TEXT_PIXELS + _MARGIN_PIXELS
    size = (columns * cell_width + _MARGIN_PIXELS, math.ceil(count / columns) * cell_height + _MARGIN_PIXELS)
    strip = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(size=12)
    for place, (frame, stamp) in enumerate(zip(clip.frames, clip.stamps, strict=True)):
        left = _MARGIN_PIXELS + place % columns * cell_width
        top = _MARGIN_PIXELS + place // columns * cell_height
        strip.paste(Image.fromarray(np.asarray(frame)), (left, top))
        draw.text((left, top + height + 2), f"#{stamp.index}  {stamp.seconds:.2f} s", fill="black", font=font)
    return strip


_GLOW = np.array([255.0, 90.0, 0.0])


def overlay_maps(clip: Clip, maps: Float[np.ndarray, "t h2 w2"]) -> Clip:
    """The clip with its frames grey, and glowing where more is looked at than if all places were looked at alike.

    Maps are not below 0 and are stretched to the frames; one scale for the whole clip, so that frames can be compared:
    the brightest place has the full glow, unless that is less than twice the mean, which has it then.
    """
    height, width = clip.frames.shape[1:3]
    mean = float(maps.mean()) or 1.0
    excess = maps / mean - 1
    excess = excess / max(1.0, float(excess.max()))
    frames = []
    for frame, seen in zip(clip.frames, excess, strict=True):
        small = Image.fromarray(seen.astype(np.float32))
        share = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR)).clip(0, 1)[..., None]
        grey = np.repeat(np.asarray(frame, dtype=np.float64).mean(2, keepdims=True), 3, axis=2)
        frames.append((grey * (1 - 0.7 * share) + _GLOW * 0.7 * share).round().astype(np.uint8))
    return replace(clip, frames=np.stack(frames))
