"""What happens to a decoded frame before it is normalised: resize, then crop or pad, all on uint8.

Each step is the one that open_clip's preprocessing takes with the same picture (Pillow's resampling with
antialiasing, the same rounding of sizes and offsets), so that the tensor comes out bit for bit equal. It is done
right after decoding, frame by frame: frames of full size never pile up.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from clipact.clip_spec import ClipSpec, Rounding

RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


Kept = Literal["start", "centre", "end"]
"""The part of the longer side that a crop keeps: its left or top, its centre, its right or bottom."""


def fit_frame(
    frame: UInt8[np.ndarray, "h w c"], spec: ClipSpec, *, keep: Kept = "centre"
) -> UInt8[np.ndarray, "h2 w2 c"]:
    """The frame at `spec.size`, resized as `spec.resize` says."""
    (fitted,) = fit_crops(frame, spec, (keep,))
    return fitted


def fit_crops(
    frame: UInt8[np.ndarray, "h w c"], spec: ClipSpec, kept: Sequence[Kept]
) -> list[UInt8[np.ndarray, "h2 w2 c"]]:
    """Several crops of the frame, which is resized once: 15 of the 17 ms that one crop of 1080p takes.

    The three together are what video models are tested with (SlowFast, arXiv 1812.03982).
    """
    height, width = resized_size(frame.shape[0], frame.shape[1], spec)
    picture = Image.fromarray(frame)
    if spec.resize == "shortest" and height * width > _MOST_RESIZED * spec.size[0] * spec.size[1]:
        return [_resize_kept(picture, (height, width), spec, keep) for keep in kept]
    if picture.size != (width, height):
        picture = picture.resize((width, height), _resampling(spec))
    fill = spec.fill if spec.resize == "longest" else 0
    return [
        np.asarray(crop_or_pad(picture, spec.size, keep=keep, fill=fill, rounding=spec.crop_rounding)) for keep in kept
    ]


# Pixels that a frame is resized to for each that the crop keeps; a longer or wider frame is cut first. The largest
# ordinary one is 32:9 at a crop of 7/8.
_MOST_RESIZED = 16


def _resize_kept(picture: Image.Image, size: tuple[int, int], spec: ClipSpec, keep: Kept) -> UInt8[np.ndarray, "h w c"]:
    """Resize only the part that the crop keeps, of a frame that would be resized to `size`.

    It can differ a little from a crop of the whole: Pillow chooses by the sizes which side it resizes first, and cuts
    values off at 0 and 255 in between.
    """
    (height, width), (crop_height, crop_width) = size, spec.size
    wide = width - crop_width >= height - crop_height
    left = _offset(width, crop_width, keep if wide else "centre", spec.crop_rounding)
    top = _offset(height, crop_height, "centre" if wide else keep, spec.crop_rounding)
    across, down = picture.width / width, picture.height / height
    box = (
        max(left, 0) * across,
        max(top, 0) * down,
        min(left + crop_width, width) * across,
        min(top + crop_height, height) * down,
    )
    there = (min(crop_width, width), min(crop_height, height))
    part = picture.resize(there, _resampling(spec), box=box)
    return np.asarray(crop_or_pad(part, spec.size, rounding=spec.crop_rounding))


def resized_size(height: int, width: int, spec: ClipSpec) -> tuple[int, int]:
    """Height and width after the resize and before the crop or the padding.

    Square targets cut off fractions, others round: open_clip uses torchvision's Resize for the first and its own
    ResizeKeepRatio for the second.
    """
    target_height, target_width = spec.size
    if spec.resize == "squash":
        return spec.size
    if spec.resize == "shortest" and (spec.shorter_side_pixels is not None or target_height == target_width):
        side = spec.shorter_side_pixels or target_width
        if width <= height:
            return max(1, int(side * height / width)), side
        return side, max(1, int(side * width / height))
    ratios = (height / target_height, width / target_width)
    ratio = max(ratios) if spec.resize == "longest" else min(ratios)
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def crop_or_pad(
    picture: Image.Image,
    size: tuple[int, int],
    *,
    keep: Kept = "centre",
    fill: int = 0,
    rounding: Rounding = "even",
) -> Image.Image:
    """The picture at exactly `size` (height, width), cut, and with `fill` around it where it is too small.

    `keep` is about the side of which more is cut; of the other the centre is kept. An odd remainder goes to the right
    and the bottom when padding; a half offset rounds as `rounding` says when cropping.
    """
    height, width = size
    wide = picture.width - width >= picture.height - height
    left = _offset(picture.width, width, keep if wide else "centre", rounding)
    top = _offset(picture.height, height, "centre" if wide else keep, rounding)
    if (left, top) == (0, 0) and picture.size == (width, height):
        return picture
    if left >= 0 and top >= 0:
        return picture.crop((left, top, left + width, top + height))
    canvas = Image.new("RGB", (width, height), (fill, fill, fill))
    canvas.paste(picture, (-left, -top))
    return canvas


def _offset(seen: int, wanted: int, keep: str, rounding: Rounding) -> int:
    """Where the crop begins; negative when the picture begins that much inside the padding."""
    if seen < wanted:
        return -((wanted - seen) // 2)
    centre = round((seen - wanted) / 2) if rounding == "even" else (seen - wanted) // 2
    return {"start": 0, "centre": centre, "end": seen - wanted}[keep]


def _resampling(spec: ClipSpec) -> Image.Resampling:
    # open_clip's ResizeKeepRatio is made without the interpolation for a target that is not square.
    keeps_ratio = spec.resize == "shortest" and spec.size[0] != spec.size[1] and spec.shorter_side_pixels is None
    return RESAMPLING["bicubic" if keeps_ratio and spec.interpolation == "bilinear" else spec.interpolation]
