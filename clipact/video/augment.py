"""Random changes to frames for training: drawn once for a clip, the same for each of its frames.

What is cut out may drift from the first frame to the last, which makes a clip of a picture (pan and zoom).
All of it happens on uint8 with Pillow, in place of `fit_frame`. Randomness comes from a NumPy generator, because this
package does without torch; `numpy.random.default_rng(torch_generator.initial_seed())` makes one from torch's.
"""

# Not torchvision's v2. Over Pillow its colours are the same to the bit, and a picture takes 1.15 times as long (1.97
# ms, here 1.71); over tensors it takes 0.88 times as long, but is resized otherwise than what a model sees later, and
# colours differ by 1 of 255. Either imports torch into every process that decodes.

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance

from clipact.clip_spec import ClipSpec, refuse_size
from clipact.errors import ConfigError
from clipact.video.transforms import RESAMPLING

Box = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How strongly clips are changed; the defaults crop and mirror.

    scale       share of the picture's area that is kept, from and to (Inception, arXiv 1409.4842)
    ratio       width over height of what is kept, from and to
    drift       how far what is kept moves and grows in the course of a clip, evenly: a share of the way to a second
                draw of it, from 0, where it stands still, to 1
    flip        probability of the mirror image; 0 where left and right matter ("moving left")
    brightness, contrast, saturation  a factor is drawn from 1 - x to 1 + x
    hue         a part of the colour circle is drawn from -x to x, 0.5 at most
    grey        probability of grey
    size        height and width of what is learnt from, where they are not the clip's own: what is cut out of a picture
                looks larger than in the whole of it, so that a model answers best at a larger size than it learnt at
                (FixRes, arXiv 1906.06423), and steps at a smaller one are cheaper
    """

    scale: tuple[float, float] = (0.25, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    drift: float = 0.0
    flip: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grey: float = 0.0
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ConfigError(f"scale is {self.scale}, ratio {self.ratio}: from and to, above 0, scale 1 at most")
        for name in ("drift", "flip", "brightness", "contrast", "saturation", "grey"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; 0 to 1")
        if not 0 <= self.hue <= 0.5:
            raise ConfigError(f"hue is {self.hue}; 0 to 0.5")
        if self.size is not None:
            refuse_size(self.size)


class DrawnAugment:
    """One draw of an Augment: call it with the frames of one clip."""

    def __init__(self, augment: Augment, spec: ClipSpec, *, generator: np.random.Generator) -> None:
        self._augment = augment
        self._spec = spec
        self._box_generator = np.random.default_rng(generator.integers(2**63))
        self._boxes: dict[tuple[int, int], tuple[Box, Box]] = {}  # of a frame's shape: the first, and where it drifts
        self.mirrored = bool(generator.random() < augment.flip)
        self.grey = bool(generator.random() < augment.grey)
        self.brightness, self.contrast, self.saturation = (
            float(generator.uniform(1 - x, 1 + x)) for x in (augment.brightness, augment.contrast, augment.saturation)
        )
        self.hue = float(generator.uniform(-augment.hue, augment.hue))

    def __call__(self, frame: UInt8[np.ndarray, "h w c"], *, moment: float = 0.0) -> UInt8[np.ndarray, "h2 w2 c"]:
        """The frame, cut, resized, mirrored and coloured as drawn; the clip's last frame is moment 1."""
        shape = (frame.shape[0], frame.shape[1])
        if shape not in self._boxes:
            first = draw_box(*shape, self._augment, generator=self._box_generator)
            # Without drift no second box is drawn, so that what is drawn next stays what it was.
            drawn = draw_box(*shape, self._augment, generator=self._box_generator) if self._augment.drift else first
            self._boxes[shape] = first, drawn
        top, left, height, width = box_between(*self._boxes[shape], share=moment * self._augment.drift)
        picture = Image.fromarray(np.ascontiguousarray(frame[top : top + height, left : left + width]))
        size = self._augment.size or self._spec.size
        picture = picture.resize(size[::-1], RESAMPLING[self._spec.interpolation])
        if self.mirrored:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(self._coloured(picture))

    def _coloured(self, picture: Image.Image) -> Image.Image:
        for enhance, factor in (
            (ImageEnhance.Brightness, self.brightness),
            (ImageEnhance.Contrast, self.contrast),
            (ImageEnhance.Color, self.saturation),
        ):
            picture = enhance(picture).enhance(factor) if factor != 1 else picture
        picture = turn_hue(picture, self.hue) if self.hue else picture
        return picture.convert("L").convert("RGB") if self.grey else picture


def draw_box(height: int, width: int, augment: Augment, *, generator: np.random.Generator) -> Box:
    """Top, left, height and width of a random part of a picture: area and shape as the Augment says.

    After ten shapes that do not fit, the largest central part whose shape is allowed, as torchvision does.
    """
    for _ in range(10):
        area = height * width * generator.uniform(*augment.scale)
        ratio = math.exp(generator.uniform(math.log(augment.ratio[0]), math.log(augment.ratio[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1)), h, w
    ratio = min(max(width / height, augment.ratio[0]), augment.ratio[1])
    h, w = min(height, round(width / ratio)), min(width, round(height * ratio))
    return (height - h) // 2, (width - w) // 2, max(h, 1), max(w, 1)


def box_between(one: Box, other: Box, *, share: float) -> Box:
    """The box that far on the way from `one` to `other`; its edges lie between theirs, on whole pixels."""
    (top, left, height, width), (top2, left2, height2, width2) = one, other
    edges = ((top, top2), (left, left2), (top + height, top2 + height2), (left + width, left2 + width2))
    # Halves always go up: rounded to even, a box one pixel high could vanish.
    top, left, bottom, right = (math.floor(a + share * (b - a) + 0.5) for a, b in edges)
    return top, left, bottom - top, right - left


def turn_hue(picture: Image.Image, part: float) -> Image.Image:
    """The picture with every hue turned by `part` of the colour circle."""
    hue, saturation, value = picture.convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(int(part * 255) % 256)  # uint8 wraps around, as the circle does
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
