"""Gates on the maps of a convolutional network: what matters is let through, the rest is turned down.

Maps are (b, c, t, h, w), those of a picture with t = 1. Each gate lies between 0 and 1 and multiplies its input, so
that a gate put into a trained network turns its maps down at first, to about a half, and has to be trained.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_EVERYWHERE = (2, 3, 4)


class SqueezeExcite(nn.Module):
    """A gate a channel, from the channels' means (squeeze and excitation, arXiv 1709.01507, equations 2 to 4)."""

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        self.shrink = nn.Linear(channels, max(1, channels // reduction))
        self.grow = nn.Linear(max(1, channels // reduction), channels)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """The maps, each channel times its gate."""
        return x * self.grow(F.relu(self.shrink(x.mean(_EVERYWHERE)))).sigmoid()[:, :, None, None, None]


class ChannelGate(nn.Module):
    """A gate a channel, from the channels' means and maxima through the same two layers (arXiv 1807.06521, eq. 2)."""

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        self.shrink = nn.Linear(channels, max(1, channels // reduction), bias=False)
        self.grow = nn.Linear(max(1, channels // reduction), channels, bias=False)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """The maps, each channel times its gate."""
        pooled = (x.mean(_EVERYWHERE), x.amax(_EVERYWHERE))
        mean, most = (self.grow(F.relu(self.shrink(one))) for one in pooled)
        return x * (mean + most).sigmoid()[:, :, None, None, None]


class PlaceGate(nn.Module):
    """A gate a place, from mean and maximum over the axes `over`, convolved (arXiv 1807.06521, equation 3).

    over    the axes 1 (channels, always among them), 2 (time), 3 and 4 (space): along these all share a gate
    kernel  of the convolution over what is left, odd
    norm    whether batch norm stands before the sigmoid, as in CBAM's own code
    """

    def __init__(self, *, over: tuple[int, ...], kernel: tuple[int, int, int], norm: bool) -> None:
        super().__init__()
        self.over = over
        padding = tuple(side // 2 for side in kernel)
        self.look = nn.Conv3d(2, 1, kernel, padding=padding, bias=not norm)  # type: ignore[arg-type]
        self.norm = nn.BatchNorm3d(1) if norm else nn.Identity()

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """The maps, each place times its gate."""
        pooled = torch.cat([x.mean(self.over, keepdim=True), x.amax(self.over, keepdim=True)], dim=1)
        return x * self.norm(self.look(pooled)).sigmoid()


class CBAM(nn.Module):
    """A gate a channel, then a gate a place of each time step (convolutional block attention, arXiv 1807.06521)."""

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        self.channel = ChannelGate(channels, reduction=reduction)
        self.place = PlaceGate(over=(1,), kernel=(1, 7, 7), norm=True)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """The gated maps."""
        return self.place(self.channel(x))


class SpaceTimeGate(nn.Module):
    """A gate a channel, a gate a place in space, and a gate a time step: which, where and when.

    The first is CBAM's; the other two are built like its second, over what they pool. They have no norm, for a short
    clip of one row may have a single step.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        self.channel = ChannelGate(channels, reduction=reduction)
        self.space = PlaceGate(over=(1, 2), kernel=(1, 7, 7), norm=False)
        self.time = PlaceGate(over=(1, 3, 4), kernel=(3, 1, 1), norm=False)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """The gated maps."""
        return self.time(self.space(self.channel(x)))
