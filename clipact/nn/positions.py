"""Where a token lies: learnt tables stretched to other lengths, and fixed sines."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor


def stretch(table: Float[Tensor, "t *rest d"], frames: int) -> Float[Tensor, "t2 *rest d"]:
    """The table for another number of time steps: linear between the steps' middles, itself where the number fits."""
    if len(table) == frames:
        return table
    rows = rearrange(table, "t ... d -> 1 (... d) t")
    stretched = F.interpolate(rows, size=frames, mode="linear", align_corners=False)
    return stretched[0].T.reshape(frames, *table.shape[1:])


def sines(length: int, width: int) -> Float[Tensor, "l d"]:
    """Fixed positions (arXiv 1706.03762, section 3.5): sines in the even columns, cosines in the odd ones."""
    if width % 2:
        raise ValueError(f"width is {width}; sines and cosines need an even one")
    # In 64 bits: an angle of 1,568 in 32 would be off by 1e-4.
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10_000.0) / width))
    angles = torch.arange(length)[:, None] * rates
    return rearrange([angles.sin(), angles.cos()], "two l half -> l (half two)").float()


def beginning(length: int, width: int) -> Float[Tensor, "l d"]:
    """What a learnt table of positions begins as: sines, of an odd width too, which tell every two places apart."""
    return sines(length, width + width % 2)[:, :width].clone()


def grid_sines(steps: int, rows: int, columns: int, *, width: int) -> Float[Tensor, "t h w d"]:
    """Fixed positions in time and space: sines of the step, of the row and of the column side by side.

    Side by side and not added up, or the second step's first place would equal the first step's second. Each axis has
    a third of `width`, time what is over as well; ValueError for a width under 6 or an odd one. Source: "sinusoidal_3d"
    of the ViViT that its authors published (google-research/scenic, `get_fixed_sincos_position_embedding`), which takes
    multiples of 6 alone and has its columns in another order.
    """
    if width < 6:
        raise ValueError(f"width is {width}; each of three axes needs a sine and a cosine")
    place = width // 6 * 2
    axes = (
        repeat(sines(steps, width - 2 * place), "t d -> t h w d", h=rows, w=columns),
        repeat(sines(rows, place), "h d -> t h w d", t=steps, w=columns),
        repeat(sines(columns, place), "w d -> t h w d", t=steps, h=rows),
    )
    return torch.cat(axes, dim=-1)
