"""A head that looks: learnt queries attend to every place of every frame, and what they see becomes one vector."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from clipact.errors import ConfigError
from clipact.nn.positions import stretch


class AttentiveHead(nn.Module):
    """Attention pooling by one learnt query a head (Set Transformer's PMA, arXiv 1810.00825, equation 11; the attentive
    probe of arXiv 2404.08471, section 4.1), then a projection.

    frames  time steps that it has positions for; they are stretched to other numbers
    Begins as the mean over all places of a linear map of them: queries and positions are zero.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Numbers that come out, and inside: `width`, in `heads` parts; dropout before the projection."""

        dim: int = 256
        width: int = 256
        heads: int = 4
        dropout: float = 0.0

        def __post_init__(self) -> None:
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
        keys = self.key(self.norm(places)) + stretch(self.positions, places.shape[1])[:, None, None]
        keys = rearrange(keys, "b t h w (n d) -> b n (t h w) d", n=self.heads)
        looks = torch.einsum("b n l d, n d -> b n l", keys, self.query) / self.query.shape[1] ** 0.5
        steps, rows, columns = places.shape[1:4]
        return rearrange(F.softmax(looks, 2), "b n (t h w) -> b n t h w", t=steps, h=rows, w=columns)

    def forward(self, places: Float[Tensor, "b t h w f"]) -> Float[Tensor, "b d"]:
        """Raw features of each clip; DualEncoder normalises them."""
        values = rearrange(self.value(self.norm(places)), "b t h w (n d) -> b n t h w d", n=self.heads)
        seen = torch.einsum("b n t h w, b n t h w d -> b n d", self.weights(places), values)
        return self.project(self.dropout(rearrange(seen, "b n d -> b (n d)")))
