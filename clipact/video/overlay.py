"""Where a model looked, drawn over the frames that it looked at."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from PIL import Image

from clipact.video.clip import Clip

_GLOW = np.array([255.0, 90.0, 0.0])


def overlay_maps(clip: Clip, maps: Float[np.ndarray, "t h2 w2"]) -> Clip:
    """The clip with its frames grey where little is looked at and glowing where most is.

    Maps are not below 0 and are stretched to the frames; the brightest place of the whole clip has the full glow, so
    that frames can be compared.
    """
    height, width = clip.frames.shape[1:3]
    most = float(maps.max()) or 1.0
    frames = []
    for frame, seen in zip(clip.frames, maps, strict=True):
        small = Image.fromarray((seen / most).astype(np.float32))
        share = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR)).clip(0, 1)[..., None]
        grey = np.repeat(np.asarray(frame, dtype=np.float64).mean(2, keepdims=True), 3, axis=2)
        frames.append((grey * (1 - 0.7 * share) + _GLOW * 0.7 * share).round().astype(np.uint8))
    return replace(clip, frames=np.stack(frames))
