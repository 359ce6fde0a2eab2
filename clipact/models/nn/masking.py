"""Draw masks for a masked autoencoder: random ones, or tubes over time."""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Int64
from torch import Tensor

from clipact.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Numbers of tokens, step by step and in each step row by row, in rising order; each stands in one of the two."""

    visible: Int64[Tensor, "b v"]
    masked: Int64[Tensor, "b m"]


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """How much is masked, and where.

    kind   "tube": the same places in every step, so that no step gives away the next (VideoMAE, arXiv 2203.12602,
           section 3.3); "random": any tokens (MAE, arXiv 2111.06377, section 3)
    ratio  the share that is masked: 0.9 to 0.95 suits tubes, 0.75 single pictures
    """

    kind: Literal["tube", "random"] = "tube"
    ratio: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ConfigError(f"mask.ratio is {self.ratio:g}; it lies between 0 and 1")


def draw_mask(config: MaskConfig, *, clips: int, steps: int, places: int, generator: torch.Generator) -> Mask:
    """A mask of each clip's `steps` x `places` tokens, as many tokens masked in each: the share nearest to the ratio.

    ConfigError where that is none of them, or all.
    """
    among = places if config.kind == "tube" else steps * places
    count = round(config.ratio * among)
    if not 0 < count < among:
        what = "places" if config.kind == "tube" else "tokens"
        raise ConfigError(
            f"mask.ratio is {config.ratio:g}, which masks {count} of {among} {what}; at least one is masked and one "
            "seen: take another ratio, or smaller patches"
        )
    order = torch.rand(clips, among, generator=generator).argsort(dim=1)
    first = torch.arange(steps) * places if config.kind == "tube" else torch.zeros(1, dtype=torch.int64)

    def numbers(chosen: Int64[Tensor, "b l"]) -> Int64[Tensor, "b n"]:
        inside = rearrange(chosen.sort(dim=1).values, "b l -> b 1 l")
        return rearrange(rearrange(first, "t -> t 1") + inside, "b t l -> b (t l)")

    return Mask(visible=numbers(order[:, count:]), masked=numbers(order[:, :count]))
