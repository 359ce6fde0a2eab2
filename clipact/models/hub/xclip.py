"""Adapt transformers' X-CLIP (arXiv 2208.02816): frames exchange messages, and text features depend on the clip.

The visual tower is at the same time what changes a sentence's features for the clip at hand (section 3.3), so a
sentence has no embedding before a clip is there: DualEncoder refuses to give one. The text tower is
`from_transformers`' own. Position embeddings are interpolated along time.
"""

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from clipact.clip_spec import ClipSpec
from clipact.errors import ConfigError, ModelError
from clipact.models.hub.transformers import (
    TransformersText,
    config_table,
    load_network,
    make_side,
    preprocess_of,
    without,
)
from clipact.models.hub.transformers_source import TransformersSource, transformers_clip_spec
from clipact.models.nn.attention import interpolate_positions
from clipact.models.towers.tower import ConditionsText, VisualTower


class XClip(VisualTower, ConditionsText):
    """Clips of any number of frames, at the network's own size."""

    order_free = False

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """transformers' own config.json; all but its text_config counts."""

        model: dict[str, Any]

    def __init__(self, config: Config, *, spec: ClipSpec, network: Any = None) -> None:
        """`network` is an XCLIPModel of which the visual side is taken; a fresh one is made when it is None."""
        super().__init__()
        self.config, self.spec = config, spec
        network = network or make_side({**config.model, "model_type": "xclip"}, "vision")
        side = network.vision_model.config.image_size
        if spec.size != (side, side):
            raise ConfigError(f"size is {spec.size}; this X-CLIP takes {(side, side)}")
        self.body, self.project = network.vision_model, network.visual_projection
        self.over_time = network.mit
        self.norm_places, self.project_places = (
            network.prompts_visual_layernorm,
            network.prompts_visual_projection,
        )
        self.prompter = network.prompts_generator
        self.dim = self.project.out_features

    def forward(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b d"]:
        """The features of each clip; ModelError for another size."""
        return self._pool(self._encode(video), frames=video.shape[1])

    def context(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b m"]:
        """Return the features of each clip, then the vectors of its places, averaged over time."""
        seen, frames = self._encode(video), video.shape[1]
        places = self.norm_places(seen.last_hidden_state[:, 1:]) @ self.project_places
        places = rearrange(places, "(b t) l d -> b t l d", t=frames).mean(1)
        return torch.cat([self._pool(seen, frames=frames), places.flatten(1)], dim=1)

    def prompted(
        self, context: Float[Tensor, "b m"], text: Float[Tensor, "n d"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b n d"]]:
        """The features of each clip, and of each sentence beside it: its own and what the clip's places add."""
        clips, places = context[:, : self.dim], context[:, self.dim :]
        sentences = text.expand(len(context), *text.shape)
        return clips, sentences + self.prompter(sentences, rearrange(places, "b (l d) -> b l d", d=self.dim))

    def _encode(self, video: Float[Tensor, "b t c h w"]) -> Any:
        if tuple(video.shape[-2:]) != self.spec.size:
            raise ModelError(f"frames are {tuple(video.shape[-2:])} pixels; this tower takes {self.spec.size}")
        for layer in self.body.encoder.layers:  # whose frames are to exchange messages
            layer.num_frames = video.shape[1]
        return self.body(rearrange(video, "b t c h w -> (b t) c h w"))

    def _pool(self, seen: Any, *, frames: int) -> Float[Tensor, "b d"]:
        projected = rearrange(self.project(seen.pooler_output), "(b t) d -> b t d", t=frames)
        positions = interpolate_positions(self.over_time.position_embedding[0], frames)[None]
        return functional_call(self.over_time, {"position_embedding": positions}, (projected,)).pooler_output


@dataclass(frozen=True, kw_only=True)
class XClipParts:
    """An X-CLIP taken apart, in evaluation mode on the CPU; log_scale as DualEncoder wants it."""

    visual: XClip
    text: TransformersText
    log_scale: float
    bias: None = None


def load_xclip(source: TransformersSource) -> XClipParts:
    """The model's towers with their weights; ModelError when the files do not make one."""
    network = load_network(source, "XCLIPModel")
    table = config_table(network)
    spec = transformers_clip_spec("xclip", preprocess_of(source), frames=network.vision_model.config.num_frames)
    words = TransformersText.Config(model=without(table, "vision_config"))
    return XClipParts(
        visual=XClip(XClip.Config(model=without(table, "text_config")), spec=spec, network=network).eval(),
        text=TransformersText(words, source.folder / "tokenizer.json", network=network).eval(),
        log_scale=network.logit_scale.item(),
    )
