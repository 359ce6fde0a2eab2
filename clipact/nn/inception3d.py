"""Inception-V1 inflated to three axes: the network of I3D (arXiv 1705.07750, figure 3), without its classifier.

Two ways to pad, for two origins of weights. "same" is TensorFlow's, zeros in space and time, with the odd one behind:
I3D's published weights were trained so. "edges" pads space as torchvision's googlenet does, and time by repeating the
first and the last step: a still clip then looks the same at its ends as in its middle, so that an inflated image
network gives it the picture's own activations.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clipact.nn.inserts import with_inserts

Padding = Literal["edges", "same"]
Triple = tuple[int, int, int]

_NORM_EPS = 1e-3  # TensorFlow's, not torch's 1e-5
# The four branches of an Inception module: 1x1; 1x1 then 3x3; 1x1 then 3x3; pool then 1x1. The third's second
# convolution is 3x3, not 5x5, in I3D and in torchvision alike.
_MIXED: dict[str, tuple[int, int, int, int, int, int]] = {
    "mixed_3b": (64, 96, 128, 16, 32, 32),
    "mixed_3c": (128, 128, 192, 32, 96, 64),
    "mixed_4b": (192, 96, 208, 16, 48, 64),
    "mixed_4c": (160, 112, 224, 24, 64, 64),
    "mixed_4d": (128, 128, 256, 24, 64, 64),
    "mixed_4e": (112, 144, 288, 32, 64, 64),
    "mixed_4f": (256, 160, 320, 32, 128, 128),
    "mixed_5b": (256, 160, 320, 32, 128, 128),
    "mixed_5c": (384, 192, 384, 48, 128, 128),
}
_CONVOLUTIONS: dict[str, tuple[int, Triple, Triple]] = {  # channels, kernel, stride
    "conv3d_1a_7x7": (64, (7, 7, 7), (2, 2, 2)),
    "conv3d_2b_1x1": (64, (1, 1, 1), (1, 1, 1)),
    "conv3d_2c_3x3": (192, (3, 3, 3), (1, 1, 1)),
}
_POOLS: dict[str, tuple[Triple, Triple]] = {  # kernel, stride
    "maxpool3d_2a_3x3": ((1, 3, 3), (1, 2, 2)),
    "maxpool3d_3a_3x3": ((1, 3, 3), (1, 2, 2)),
    "maxpool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
    "maxpool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
}
_ORDER = (
    "conv3d_1a_7x7 maxpool3d_2a_3x3 conv3d_2b_1x1 conv3d_2c_3x3 maxpool3d_3a_3x3 mixed_3b mixed_3c maxpool3d_4a_3x3 "
    "mixed_4b mixed_4c mixed_4d mixed_4e mixed_4f maxpool3d_5a_2x2 mixed_5b mixed_5c"
).split()


def _channels_behind() -> dict[str, int]:
    behind: dict[str, int] = {}
    channels = 0
    for place in _ORDER:
        if place in _CONVOLUTIONS:
            channels = _CONVOLUTIONS[place][0]
        elif place in _MIXED:
            one, _, two, _, three, four = _MIXED[place]
            channels = one + two + three + four
        behind[place] = channels
    return behind


PLACES = _channels_behind()
"""The layers by name, in order, and how many channels the maps have behind each."""

CHANNELS = PLACES[_ORDER[-1]]


class Inception3D(nn.Module):
    """Clips in, maps out: 8 times fewer steps and 32 times fewer pixels a side, rounded up, never less than one.

    inserts  a name in `clipact.nn.inserts.INSERTS` for a place in PLACES: that block stands behind that layer
    """

    def __init__(self, channels_in: int, *, padding: Padding, inserts: Mapping[str, str]) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {}
        for place in _ORDER:
            if place in _POOLS:
                layers[place] = MaxPool(*_POOLS[place], padding=padding)
            elif place in _CONVOLUTIONS:
                out, kernel, stride = _CONVOLUTIONS[place]
                layers[place] = ConvNorm(channels_in, out, kernel=kernel, stride=stride, padding=padding)
            else:
                layers[place] = Mixed(channels_in, _MIXED[place], padding=padding)
            channels_in = PLACES[place]
        self.layers = nn.ModuleDict(with_inserts(layers, inserts, places=PLACES))

    def forward(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b f t2 h2 w2"]:
        """The maps behind the last layer."""
        for layer in self.layers.values():
            video = layer(video)
        return video


class Mixed(nn.Module):
    """An Inception module: four branches side by side (arXiv 1409.4842, figure 2b)."""

    def __init__(self, channels_in: int, widths: tuple[int, int, int, int, int, int], *, padding: Padding) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int, side: int) -> ConvNorm:
            return ConvNorm(inputs, outputs, kernel=(side, side, side), stride=(1, 1, 1), padding=padding)

        one, two_in, two, three_in, three, four = widths
        self.branch1 = conv(channels_in, one, 1)
        self.branch2 = nn.Sequential(conv(channels_in, two_in, 1), conv(two_in, two, 3))
        self.branch3 = nn.Sequential(conv(channels_in, three_in, 1), conv(three_in, three, 3))
        self.branch4 = nn.Sequential(MaxPool((3, 3, 3), (1, 1, 1), padding=padding), conv(channels_in, four, 1))

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c2 t h w"]:
        """The branches' channels one after the other."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class ConvNorm(nn.Module):
    """A padded convolution, batch norm, ReLU."""

    def __init__(
        self, channels_in: int, channels_out: int, *, kernel: Triple, stride: Triple, padding: Padding
    ) -> None:
        super().__init__()
        self.padding = padding
        self.conv = nn.Conv3d(channels_in, channels_out, kernel, stride=stride, bias=False)
        self.norm = nn.BatchNorm3d(channels_out, eps=_NORM_EPS)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c2 t2 h2 w2"]:
        """What the network sees behind this layer, not below 0."""
        kernel, stride = self.conv.kernel_size, self.conv.stride
        amounts = _same(x.shape[2:], kernel, stride)
        if self.padding == "edges":
            before, behind = amounts[0]
            # Much quicker than padding with mode="replicate".
            x = torch.cat([x[:, :, :1]] * before + [x] + [x[:, :, -1:]] * behind, dim=2)
            amounts = [(0, 0), *((side // 2, side // 2) for side in kernel[1:])]
        even = [amount if amount[0] == amount[1] else (0, 0) for amount in amounts]
        if even != amounts:  # a convolution pads both sides alike; the rest has to be written out
            rest = [(0, 0) if amount == kept else amount for amount, kept in zip(amounts, even, strict=True)]
            x = F.pad(x, [side for amount in reversed(rest) for side in amount])
        seen = F.conv3d(x, self.conv.weight, None, stride, [before for before, _ in even])
        return F.relu(self.norm(seen), inplace=True)


class MaxPool(nn.Module):
    """A maximum over the neighbours that there are: no padding beyond a border can be above what stands at it.

    What it is given is not below 0, so that TensorFlow's zeros are no more than that either.
    """

    def __init__(self, kernel: Triple, stride: Triple, *, padding: Padding) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t2 h2 w2"]:
        """The maxima; what sticks out lies behind, but for an even amount, half of which lies before."""
        before = [amount for amount, _ in _same(x.shape[2:], self.kernel, self.stride)]
        if self.padding == "edges" and self.stride[1] > 1:  # torchvision's ceil_mode in space
            before = [before[0], *(int(length == 1) for length in x.shape[3:])]
        return F.max_pool3d(x, self.kernel, self.stride, before, ceil_mode=True)


def _same(lengths: torch.Size, kernel: tuple[int, ...], stride: tuple[int, ...]) -> list[tuple[int, int]]:
    """Before and behind on each axis, so that ceil(length / stride) come out; the odd one stands behind."""
    totals = [
        max(0, (math.ceil(length / step) - 1) * step + side - length)
        for length, side, step in zip(lengths, kernel, stride, strict=True)
    ]
    return [(total // 2, total - total // 2) for total in totals]
