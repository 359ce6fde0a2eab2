"""The temporal shift: frames lend some of their channels to their neighbours (TSM, arXiv 1811.08383, section 3)."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def temporal_shift(x: Float[Tensor, "bt *rest"], *, frames: int, share: float, axis: int) -> Float[Tensor, "bt *rest"]:
    """The same shape, with `share` of the channels taken from the frame before and as many from the frame after.

    axis  where the channels lie, not the first; channels that come from before the first or after the last frame are 0
    """
    moved = int(x.shape[axis] * share)
    clips = rearrange(x.movedim(axis, 1), "(b t) c ... -> b t c ...", t=frames)
    before, after, still = clips[:, :, :moved], clips[:, :, moved : 2 * moved], clips[:, :, 2 * moved :]
    nothing = torch.zeros_like(before[:, :1])
    shifted = torch.cat([torch.cat([nothing, before[:, :-1]], 1), torch.cat([after[:, 1:], nothing], 1), still], dim=2)
    shifted = rearrange(shifted, "b t c ... -> (b t) c ...").movedim(1, axis)
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return shifted.contiguous(memory_format=torch.channels_last)  # as it came: convolutions go on as they went
    return shifted
