"""Where a model looked, drawn over the frames that it looked at."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from PIL import Image

from clipact.video.clip import Clip

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
