"""A transformer block over the tokens of a clip that looks along space, then along time (arXiv 2103.15691, model 3)."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from clipact.nn.attention import MLP, Activation, Attention, begin_at_zero


class SpaceTimeBlock(nn.Module):
    """x + space(norm(x)), x + time(norm(x)), x + mlp(norm(x)); what looks along time begins at zero."""

    def __init__(
        self, width: int, *, heads: int, hidden: int, activation: Activation = "gelu", norm_eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, eps=norm_eps)
        self.attention = Attention(width, heads=heads)
        self.norm_time = nn.LayerNorm(width, eps=norm_eps)
        self.time = Attention(width, heads=heads)
        self.norm_mlp = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, hidden=hidden, activation=activation)
        begin_at_zero(self.time.merge)

    def forward(self, x: Float[Tensor, "b t l d"]) -> Float[Tensor, "b t l d"]:
        """The tokens after this block; each saw all of its frame, then its own place in all frames."""
        batch = len(x)
        x = x + rearrange(
            self.attention(rearrange(self.norm_attention(x), "b t l d -> (b t) l d")), "(b t) l d -> b t l d", b=batch
        )
        x = x + rearrange(
            self.time(rearrange(self.norm_time(x), "b t l d -> (b l) t d")), "(b l) t d -> b t l d", b=batch
        )
        return x + self.mlp(self.norm_mlp(x))
