"""Reconstruction loss of a masked autoencoder, and its targets."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor

_EPS = 1e-6  # VideoMAE's, beside the deviation: a patch of one colour becomes zeros


def masked_mse(
    predicted: Float[Tensor, "b m p"], target: Float[Tensor, "b n p"], *, masked: Int64[Tensor, "b m"]
) -> Float[Tensor, ""]:
    """The mean squared difference over the masked patches alone (MAE, arXiv 2111.06377, section 3).

    `masked` are their numbers among the target's, one prediction each. In 32 bits at least, whatever autocast says.
    """
    with torch.autocast(predicted.device.type, enabled=False):
        wanted = pick_patches(target, masked)
        return F.mse_loss(predicted.to(torch.promote_types(predicted.dtype, torch.float32)), wanted)


def pick_patches(patches: Float[Tensor, "b n p"], numbers: Int64[Tensor, "b m"]) -> Float[Tensor, "b m p"]:
    """The patches of these numbers, each clip its own."""
    return patches.gather(1, numbers[..., None].expand(-1, -1, patches.shape[2]))


def patch_moments(
    patches: Float[Tensor, "b n p"], *, channels: int
) -> tuple[Float[Tensor, "b n p"], Float[Tensor, "b n p"]]:
    """Mean and deviation of each channel of each patch, as large as the patches, whose channels come first.

    The deviation is that of a sample (n - 1), and a little more.
    """
    apart = rearrange(patches, "b n (c k) -> b n c k", c=channels)
    mean, deviation = apart.mean(3, keepdim=True), apart.std(3, keepdim=True) + _EPS
    flat = (rearrange(one.expand_as(apart), "b n c k -> b n (c k)") for one in (mean, deviation))
    return next(flat), next(flat)


def normalise_patches(patches: Float[Tensor, "b n p"], *, channels: int) -> Float[Tensor, "b n p"]:
    """Each channel of each patch less its mean, over its deviation: the target of VideoMAE (its published code).

    MAE takes the moments over all channels at once. Predicting each patch's mean would err by 1 - 1/n, n being the
    pixels of a channel, and by 0 where the patch is of one colour.
    """
    mean, deviation = patch_moments(patches, channels=channels)
    return (patches - mean) / deviation
