"""What a visual tower eats: how many frames, chosen how, at which size, normalised how.

A ClipSpec travels with the model's weights, so that the frames a model sees at inference are the frames it
was trained on. It holds facts only; `clipact.video` carries them out.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from clipact.errors import ConfigError, choices

Sampling = Literal[
    "uniform",
    "segment_centers",
    "strided",
    "fps",
    "uniform_by_number",
    "segment_centers_by_number",
    "strided_by_number",
]
BY_NUMBER = "_by_number"
Resize = Literal["shortest", "squash", "longest"]
Interpolation = Literal["bicubic", "bilinear", "nearest"]
Rounding = Literal["even", "down"]
Averaging = Literal["embeddings", "logits", "probabilities"]  # over the views of a video


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """The input of a visual tower.

    frames         frames a clip, at least 1
    sampling       "uniform": linspace that includes the first and last frame (PE, arXiv 2504.13181);
                   "segment_centers": the middle of equal segments (TSN, arXiv 1608.00859; InternVideo2);
                   "strided": `stride` frames from each other (SlowFast, Open-VCLIP);
                   "fps": `rate_fps` frames a second, whatever the rate of the video.
                   Where a video's rate varies strongly (`clipact.video.frame_rate.is_uneven`), all of them take frames
                   at equal times; "uniform_by_number", "segment_centers_by_number" and "strided_by_number" do not
    stride         for "strided" and "strided_by_number", at least 1
    rate_fps       for "fps", above 0
    size           height and width in pixels after the transform
    resize         "shortest": the shorter side to size, then a centre crop; "squash": both sides, the aspect ratio
                   is lost; "longest": the longer side to size, the rest padded with `fill`
    shorter_side_pixels  for "shortest": what the shorter side becomes before the crop; by default what the crop keeps
    crop_rounding  where a crop begins whose margin is odd: at the even one of its two middles (torchvision), or always
                   "down" (transformers)
    interpolation  always antialiased when it makes a picture smaller
    mean, std      per channel, on a 0..1 scale
    modality       "rgb" for now: c = 3
    """

    frames: int = 8
    sampling: Sampling = "segment_centers"
    size: tuple[int, int] = (224, 224)
    resize: Resize = "shortest"
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, arXiv 2103.00020
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    fill: int = 0
    modality: Literal["rgb"] = "rgb"
    stride: int = 16
    rate_fps: float = 1.0
    shorter_side_pixels: int | None = None
    crop_rounding: Rounding = "even"

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ConfigError(f"frames is {self.frames}; a clip has at least 1")
        if self.stride < 1 or not self.rate_fps > 0:
            raise ConfigError(f"stride is {self.stride} and rate_fps {self.rate_fps}; at least 1, and above 0")
        refuse_size(self.size)
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ConfigError(f"mean {self.mean} and std {self.std}: one each a channel, std above 0")
        if self.shorter_side_pixels is not None and (self.resize != "shortest" or self.shorter_side_pixels < 1):
            raise ConfigError(
                f"shorter_side_pixels is {self.shorter_side_pixels} and resize {self.resize!r}; "
                "it is at least 1, and for 'shortest' alone"
            )
        words = {"sampling": Sampling, "resize": Resize, "interpolation": Interpolation, "crop_rounding": Rounding}
        for name, allowed in words.items():
            seen = getattr(self, name)
            if seen not in get_args(allowed):
                raise ConfigError(f"{name} is {seen!r}; {choices(str(seen), get_args(allowed))}")

    def with_frames(self, frames: int | None) -> "ClipSpec":
        """The same with another number of frames; itself when None."""
        return self if frames is None else replace(self, frames=frames)

    def in_colours_of(self, other: "ClipSpec") -> "ClipSpec":
        """The same clips, their colours normalised as the other's."""
        return replace(self, mean=other.mean, std=other.std)


def refuse_size(size: tuple[int, int]) -> None:
    """ConfigError for a height or width that no picture has."""
    if min(size) < 1:
        raise ConfigError(f"size is {size}; height and width are at least 1 pixel")


@dataclass(frozen=True)
class FrameStamp:
    """One line of the frame ledger: the frame's number in presentation order, and when it is shown."""

    index: int
    seconds: float
