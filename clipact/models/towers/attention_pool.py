"""Attention pooling over the feature maps of all frames of a clip."""

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from clipact.clip_spec import ClipSpec
from clipact.config import check_probability
from clipact.errors import ConfigError
from clipact.models.nn.attention import interpolate_positions
from clipact.models.towers.tower import HasFeatureMaps, HasHead, ImageTower, VisualTower


class AttentionPoolHead(nn.Module):
    """Attention pooling by one learnt query a head (Set Transformer's PMA, arXiv 1810.00825, equation 11; the attentive
    probe of arXiv 2404.08471, section 4.1), then a projection.

    frames  time steps that it has positions for; they are stretched to other numbers
    Begins as the mean over all places of a linear map of them: queries and positions are zero. Products of queries and
    keys are not divided by the root of their length, so that a query need not grow far before it looks at something.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Numbers that come out, and inside: `width`, in `heads` parts; dropout before the projection."""

        dim: int = 256
        width: int = 256
        heads: int = 4
        dropout: float = 0.0

        def __post_init__(self) -> None:
            check_probability("dropout", self.dropout)
            if self.heads < 1 or self.width % self.heads:
                raise ConfigError(f"heads is {self.heads}; it divides the width, {self.width}")

    def __init__(self, features: int, *, frames: int, config: Config) -> None:
        super().__init__()
        self.heads, self.dim = config.heads, config.dim
        self.norm = nn.LayerNorm(features)
        self.key = nn.Linear(features, config.width, bias=False)  # a bias would weigh all places alike
        self.value = nn.Linear(features, config.width)
        self.positions = nn.Parameter(torch.zeros(frames, config.width))
        self.query = nn.Parameter(torch.zeros(config.heads, config.width // config.heads))
        self.dropout = nn.Dropout(config.dropout)
        self.project = nn.Linear(config.width, config.dim)

    def weights(self, places: Float[Tensor, "b t h w f"]) -> Float[Tensor, "b n t h w"]:
        """How much of each place each of n heads looks at; above 0, and 1 together."""
        return self._weights(self.norm(places))

    def forward(self, places: Float[Tensor, "b t h w f"]) -> Float[Tensor, "b d"]:
        """Raw features of each clip; DualEncoder normalises them."""
        normed = self.norm(places)
        # A mean of linear maps is the map of the mean: only n vectors a clip become values, not every place.
        seen = torch.einsum("b n t h w, b t h w f -> b n f", self._weights(normed), normed)
        matrix = rearrange(self.value.weight, "(n d) f -> n d f", n=self.heads)
        values = rearrange(torch.einsum("b n f, n d f -> b n d", seen, matrix), "b n d -> b (n d)")
        return self.project(self.dropout(values + self.value.bias))

    def _weights(self, normed: Float[Tensor, "b t h w f"]) -> Float[Tensor, "b n t h w"]:
        steps, rows, columns = normed.shape[1:4]
        matrix = rearrange(self.key.weight, "(n d) f -> n d f", n=self.heads)
        positions = rearrange(interpolate_positions(self.positions, steps), "t (n d) -> t n d", n=self.heads)
        looks = torch.einsum(
            "b t h w f, n f -> b n t h w", normed, torch.einsum("n d f, n d -> n f", matrix, self.query)
        )
        looks = looks + torch.einsum("t n d, n d -> n t", positions, self.query)[:, :, None, None]
        flat = F.softmax(rearrange(looks, "b n t h w -> b n (t h w)"), 2)
        return rearrange(flat, "b n (t h w) -> b n t h w", t=steps, h=rows, w=columns)


class AttentionPoolTower(VisualTower, HasHead):
    """Any image tower that has a vector a place, made a video tower by attention pooling over places and frames.

    image  the tower for one frame
    spec   how clips are prepared; when None, the image tower's pictures in the default number of frames
    Where the head looks, `attention` says.
    """

    order_free = False
    head: AttentionPoolHead

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """The head that looks."""

        head: AttentionPoolHead.Config = field(default_factory=AttentionPoolHead.Config)

    def __init__(self, image: ImageTower, config: Config | None = None, *, spec: ClipSpec | None = None) -> None:
        super().__init__()
        if not isinstance(image, HasFeatureMaps):
            raise ConfigError(
                f"a {type(image).__name__} gives no vector a place for attention to look at; "
                "efficientnet_lite, transformers and the vision transformers of open_clip do"
            )
        self.config = config or self.Config()
        self.image = image
        self.spec = spec or replace(image.spec, frames=ClipSpec().frames)
        self.head = AttentionPoolHead(image.map_dim, frames=self.spec.frames, config=self.config.head)
        self.dim = self.head.dim

    def features(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t h2 w2 f"]:
        """The image tower's vector of each place of each frame."""
        assert isinstance(self.image, HasFeatureMaps)
        maps = self.image.maps(rearrange(video, "b t c h w -> (b t) c h w"))
        return rearrange(maps, "(b t) h w f -> b t h w f", t=video.shape[1])

    def forward(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b d"]:
        """The features of each clip, any number of frames."""
        return self.head(self.features(video))

    def attention(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t h2 w2"]:
        """How much of each place of each frame the head looks at, the mean over its heads; 1 together a clip."""
        return self.head.weights(self.features(video)).mean(1)
