"""Where a token lies: learnt tables stretched to other lengths, and fixed sines."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
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
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(length)[:, None] * rates
    return rearrange([angles.sin(), angles.cos()], "two l half -> l (half two)")
