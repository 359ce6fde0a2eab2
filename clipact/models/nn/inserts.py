"""Blocks to insert between the layers of a convolutional network: attention gates, and non-local blocks.

Feature maps keep their shape.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from clipact.errors import ConfigError, choices
from clipact.models.nn.attention import zero_init

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


class PositionGate(nn.Module):
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
        self.place = PositionGate(over=(1,), kernel=(1, 7, 7), norm=True)

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
        self.space = PositionGate(over=(1, 2), kernel=(1, 7, 7), norm=False)
        self.time = PositionGate(over=(1, 3, 4), kernel=(3, 1, 1), norm=False)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """The gated maps."""
        return self.time(self.space(self.channel(x)))


Pairwise = Literal["embedded_gaussian", "gaussian", "dot_product"]


class NonLocal(nn.Module):
    """x + W y, where y is at each place a mean of g(x) over all places, weighted by how the two are related.

    pairwise  the relation f: "gaussian" exp(xi . xj) (equation 2), "embedded_gaussian" exp(theta(xi) . phi(xj))
              (equation 3), both made to add up to 1; or "dot_product" theta(xi) . phi(xj), over the number of places
              (equation 4)

    W begins at zero, and the block as the identity (section 3.3). Half as many channels inside; no subsampling.
    """

    def __init__(self, channels: int, *, pairwise: Pairwise = "embedded_gaussian") -> None:
        super().__init__()
        inside = max(1, channels // 2)
        self.pairwise = pairwise
        self.value = nn.Linear(channels, inside)
        self.query = self.key = None
        if pairwise != "gaussian":
            self.query, self.key = nn.Linear(channels, inside), nn.Linear(channels, inside)
        self.proj = nn.Linear(inside, channels)
        zero_init(self.proj)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """The maps after the block."""
        places = rearrange(x, "b c t h w -> b (t h w) c")
        query = places if self.query is None else self.query(places)
        key = places if self.key is None else self.key(places)
        value = self.value(places)
        if self.pairwise == "dot_product":
            # (q k^T) v = q (k^T v): no matrix of places by places.
            seen = query @ (key.transpose(1, 2) @ value) / places.shape[1]
        else:
            seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return x + rearrange(self.proj(seen), "b (t h w) c -> b c t h w", t=x.shape[2], h=x.shape[3])


INSERTS: dict[str, Callable[[int], nn.Module]] = {
    "se": SqueezeExcite,
    "cbam": CBAM,
    "space_time": SpaceTimeGate,
    "non_local": NonLocal,
    "non_local_gaussian": partial(NonLocal, pairwise="gaussian"),
    "non_local_dot_product": partial(NonLocal, pairwise="dot_product"),
}

ORDER_SENSITIVE_INSERTS = {"space_time"}
"""Those that tell a clip from its reverse."""


def check_inserts(inserts: Mapping[str, str], *, places: Iterable[str]) -> None:
    """Nothing; ConfigError for a place that the network does not have, or a kind that is not in INSERTS."""
    for place, kind in inserts.items():
        if place not in places:
            raise ConfigError(f"inserts names the place {place!r}; {choices(place, places)}")
        if kind not in INSERTS:
            raise ConfigError(f"inserts.{place} is {kind!r}; {choices(kind, INSERTS)}")


def with_inserts(
    layers: Mapping[str, nn.Module], inserts: Mapping[str, str], *, places: Mapping[str, int]
) -> dict[str, nn.Module]:
    """The layers in their order, each insert behind the layer of its name; `places` has the channels behind each."""
    check_inserts(inserts, places=places)
    together: dict[str, nn.Module] = {}
    for name, layer in layers.items():
        together[name] = layer
        if name in inserts:
            together[f"{name}_{inserts[name]}"] = INSERTS[inserts[name]](places[name])
    return together
