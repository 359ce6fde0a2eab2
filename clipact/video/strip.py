"""A clip as one picture: its frames in rows, each with its number and second, to see what a model sees."""

import math

import numpy as np
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
