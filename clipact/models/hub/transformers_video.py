"""Adapt transformers' video networks to visual towers: VideoMAE, TimeSformer, ViViT and V-JEPA 2, with a head.

They were trained without text; a new head projects their features into the embedding space of a text tower. They take
other numbers of frames than their own where tubelets divide them: learnt and sinusoidal positions are interpolated
along time (TimeSformer's own take the nearest), V-JEPA 2's rotations continue. transformers is imported inside
functions.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from clipact.clip_spec import ClipSpec
from clipact.errors import ConfigError, ModelError, choices
from clipact.models.hub.transformers import config_table, load_network, make_network
from clipact.models.hub.transformers_source import TransformersSource, transformers_clip_spec
from clipact.models.nn.attention import init_positions, interpolate_positions
from clipact.models.towers.tower import HasHead, Head, VisualTower


@dataclass(frozen=True)
class VideoFamily:
    """What transformers calls a kind of network and its parts.

    frames, size  the keys of its table for frames a clip and pixels along a side
    positions     where its positions lie; None for a network that takes any length by itself
    class_token   whether the first token is the clip's vector; else the mean of all tokens is
    """

    name: str
    frames: str
    size: str
    positions: str | None
    class_token: bool


VIDEO_NETWORKS = {
    "videomae": VideoFamily("VideoMAE", "num_frames", "image_size", "embeddings.position_embeddings", False),
    "timesformer": VideoFamily("Timesformer", "num_frames", "image_size", None, True),
    "vivit": VideoFamily("Vivit", "num_frames", "image_size", "embeddings.position_embeddings", True),
    "vjepa2": VideoFamily("VJEPA2", "frames_per_clip", "crop_size", None, False),
}


class TransformersVideo(VisualTower, HasHead):
    """Clips of any number of frames that the network's tubelets divide, at its own size."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """transformers' own config.json, with its model_type, and the head."""

        model: dict[str, Any]
        head: Head.Config = field(default_factory=lambda: Head.Config(blocks=0))

    def __init__(self, config: Config, *, spec: ClipSpec, network: Any = None) -> None:
        """`network` is the one that the table describes, if it is made already."""
        super().__init__()
        self.config, self.spec = config, spec
        self.family = _family(config.model)
        network = network or _fresh_network(self.family, config.model)
        table, self.network = network.config, network
        self.tubelet, self.own_frames = _tubelet(table), getattr(table, self.family.frames)
        side = getattr(table, self.family.size)
        if spec.size not in ((side, side), tuple(side) if isinstance(side, list) else None):
            raise ConfigError(f"size is {spec.size}; this {self.family.name} takes {side} pixels along each side")
        self._refuse_length(spec.frames)
        if self.family.name == "VJEPA2":
            self.network = network.encoder  # what its predictor fills in was for learning without labels
        elif self.family.name == "Vivit":
            network.pooler = None  # drawn at random unless somebody trained it; not used by its classifiers either
        elif self.family.name == "VideoMAE":  # a plain tensor there: a buffer follows the tower to its device
            table_of_sines = network.embeddings.__dict__.pop("position_embeddings")
            network.embeddings.register_buffer("position_embeddings", table_of_sines, persistent=False)
        self.order_free = getattr(table, "attention_type", None) == "space_only"
        self.head = Head(table.hidden_size, config.head)
        self.dim = self.head.dim

    def features(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b f"]:
        """The network's class token, or the mean of its tokens; of a TimeSformer that looks along space alone, the
        mean of the frames' class tokens before the last norm."""
        frames = video.shape[1]
        self._refuse_length(frames)
        if tuple(video.shape[-2:]) != self.spec.size:
            raise ModelError(f"frames are {tuple(video.shape[-2:])} pixels; this tower takes {self.spec.size}")
        if self.family.name == "Timesformer":
            self.network.config.num_frames = frames  # its layers ask there which tokens are one frame's
        if self.order_free:
            # As TimeSformer's authors do it; transformers leaves the frames apart, each a row of its own.
            seen = self.network.encoder(self.network.embeddings(video))[0][:, 0]
            return self.network.layernorm(rearrange(seen, "(b t) d -> b t d", t=frames).mean(1))
        seen = functional_call(self.network, self._stretched(frames), (video,)).last_hidden_state
        return seen[:, 0] if self.family.class_token else seen.mean(1)

    def forward(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b d"]:
        """The features of each clip, through the head; ModelError for a size or a number of frames not allowed."""
        return self.head(self.features(video))

    def _stretched(self, frames: int) -> dict[str, Tensor]:
        """The positions for this many frames, under the name that they have in the network."""
        name = self.family.positions
        if name is None or frames == self.own_frames:
            return {}
        table: Tensor = self.network.embeddings.position_embeddings
        first = int(self.family.class_token)
        places = rearrange(table[0, first:], "(t l) d -> t l d", t=self.own_frames // self.tubelet)
        longer = rearrange(interpolate_positions(places, frames // self.tubelet), "t l d -> 1 (t l) d")
        return {name: torch.cat([table[:, :first], longer], dim=1)}

    def _refuse_length(self, frames: int) -> None:
        if frames % self.tubelet:
            raise ModelError(
                f"a clip has {frames} frames; this {self.family.name} sees {self.tubelet} at a time and takes multiples"
            )


def _fresh_network(family: VideoFamily, table: dict[str, Any]) -> Any:
    """A network with random weights, which tells steps apart from the first on.

    transformers begins TimeSformer's table of them at zero, for weights to be loaded into: 800 steps of
    eval/benchmarks/motion.py then taught no order (48 % of unseen combinations, 93 % from sines, as they begin here).
    """
    network = make_network(family.name, table)
    if family.name == "Timesformer" and (steps := getattr(network.embeddings, "time_embeddings", None)) is not None:
        with torch.no_grad():
            steps.copy_(init_positions(steps.shape[1], steps.shape[2]))
    return network


def load_tower(source: TransformersSource, *, head: Head.Config, spec: ClipSpec | None = None) -> TransformersVideo:
    """The network with its weights and a new head; its clips as its folder says, unless `spec` does."""
    family = _family(source.config)
    network = load_network(source, f"{family.name}Model", may_be_missing=("pooler.", "predictor."))
    if spec is None:
        if source.preprocess is None:
            raise ModelError(f"{source.folder} does not say how frames are prepared: give init.clip")
        frames = getattr(network.config, family.frames)
        spec = transformers_clip_spec(source.family, source.preprocess, frames=frames)
    return TransformersVideo(
        TransformersVideo.Config(model=config_table(network), head=head), spec=spec, network=network
    ).eval()


def _family(table: dict[str, Any]) -> VideoFamily:
    name = str(table.get("model_type"))
    if name not in VIDEO_NETWORKS:
        raise ConfigError(f"model_type is {name!r}; {choices(name, VIDEO_NETWORKS)}")
    return VIDEO_NETWORKS[name]


def _tubelet(table: Any) -> int:
    tubelet = getattr(table, "tubelet_size", 1)
    return int(tubelet[0] if isinstance(tubelet, (list, tuple)) else tubelet)
