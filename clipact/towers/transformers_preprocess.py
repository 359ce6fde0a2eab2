"""How transformers prepares pictures (preprocessor_config.json), said as a ClipSpec; what it cannot say is refused.

The pictures that follow are those of transformers' processors over Pillow, bit for bit; its processors over torchvision
resample a little differently.
"""

import math
from collections.abc import Mapping
from typing import Any

from clipact.clip_spec import ClipSpec, Interpolation
from clipact.errors import ConfigError, ModelError

_CLIP = ClipSpec().mean, ClipSpec().std
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_INTERPOLATION: dict[int, Interpolation] = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def _defaults(
    size: int, resample: int, means: tuple[tuple[float, ...], tuple[float, ...]], *, crop: int | None
) -> dict[str, Any]:
    return {
        "size": {"shortest_edge": size} if crop else {"height": size, "width": size},
        "do_center_crop": crop is not None,
        "crop_size": crop,
        "resample": resample,
        "image_mean": means[0],
        "image_std": means[1],
    }


# What each family's processor does where its file is silent.
DEFAULTS: dict[str, dict[str, Any]] = {
    "clip": _defaults(224, 3, _CLIP, crop=224),
    "siglip": _defaults(224, 3, _HALF, crop=None),
    "siglip2": _defaults(256, 2, _HALF, crop=None) | {"patch_size": 16, "max_num_patches": 256},
    "xclip": _defaults(224, 2, _HALF, crop=224),
    "videomae": _defaults(224, 2, _HALF, crop=224),
    "timesformer": _defaults(224, 2, _IMAGENET, crop=224),
    "vivit": _defaults(256, 2, _HALF, crop=224) | {"rescale_factor": 1 / 127.5, "offset": True},
    "vjepa2": _defaults(292, 2, _IMAGENET, crop=256),
}


def clip_spec(family: str, preprocess: Mapping[str, Any], *, frames: int = 1) -> ClipSpec:
    """How a processor of that family prepares pictures, in `frames` frames; ModelError where no ClipSpec can say it.

    A SigLIP 2 that takes any shape (NaFlex) is given squares of as many patches as it takes: what its own processor
    makes of a square picture. Other shapes lose their aspect ratio.
    """
    table = {**DEFAULTS[family], **{key: value for key, value in preprocess.items() if value is not None}}
    if table["resample"] not in _INTERPOLATION:
        raise ModelError(f"resample is {table['resample']!r}; clipact resizes by {_INTERPOLATION}")
    mean, std = _normalisation(table)
    if family == "siglip2":
        side = table["patch_size"] * math.isqrt(table["max_num_patches"])
        shape: dict[str, Any] = {"size": (side, side), "resize": "squash"}
    else:
        shape = _shape(family, table)
    try:
        return ClipSpec(
            frames=frames,
            interpolation=_INTERPOLATION[table["resample"]],
            mean=mean,
            std=std,
            crop_rounding="down",
            **shape,
        )
    except ConfigError as error:
        raise ModelError(f"how pictures are prepared cannot be meant: {error}") from error


def _shape(family: str, table: Mapping[str, Any]) -> dict[str, Any]:
    size, crop = table["size"], table["crop_size"] if table.get("do_center_crop") else None
    if not table.get("do_resize", True):
        raise ModelError("do_resize is false: clipact's pictures have one size")
    if isinstance(size, int):  # older files; one number is the shorter side where something is cropped
        size = {"shortest_edge": size} if "shortest_edge" in DEFAULTS[family]["size"] else _square(size)
    crop = _square(crop) if isinstance(crop, int) else crop
    if family == "vjepa2" and crop:
        size = {"shortest_edge": int(crop["height"] * 256 / 224)}  # whatever its file says
    if crop and "shortest_edge" in size and "longest_edge" not in size:
        side, kept = size["shortest_edge"], (crop["height"], crop["width"])
        if max(kept) > side:
            raise ModelError(f"crop_size is {crop}, but the shorter side becomes {side} pixels: no padding is known")
        return {"size": kept, "shorter_side_pixels": None if kept == (side, side) else side}
    sides = (size.get("height"), size.get("width"))
    if None not in sides and (crop is None or sides == (crop["height"], crop["width"])):
        return {"size": sides, "resize": "squash"}
    raise ModelError(
        f"size is {size} and crop_size {crop}; clipact knows shortest_edge with a crop, or height and width"
    )


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _normalisation(table: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std on a 0..1 scale of (pixel x factor - offset - mean) / std."""
    factor = table.get("rescale_factor", 1 / 255) if table.get("do_rescale", True) else 1.0
    offset = 1.0 if table.get("offset") and table.get("do_rescale", True) else 0.0
    white = 255 * factor if abs(255 * factor - round(255 * factor)) > 1e-9 else round(255 * factor)
    normal = table.get("do_normalize", True)
    mean, std = (_three(table["image_mean"]), _three(table["image_std"])) if normal else (_three(0), _three(1))
    return tuple((offset + value) / white for value in mean), tuple(value / white for value in std)


def _three(value: Any) -> tuple[float, ...]:
    return (float(value),) * 3 if isinstance(value, (int, float)) else tuple(map(float, value))
