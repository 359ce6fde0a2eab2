"""Transformer blocks, and position embeddings: learnt ones, interpolated to other lengths, and sinusoidal ones."""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]


def activate(x: Float[Tensor, "*shape"], kind: Activation) -> Float[Tensor, "*shape"]:
    """gelu, its tanh approximation (arXiv 1606.08415), or x sigmoid(1.702 x), which OpenAI's CLIP was trained with."""
    if kind == "quick_gelu":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")


class Attention(nn.Module):
    """Multi-head self-attention over the tokens of each row (arXiv 1706.03762, section 3.2)."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        """A mixture of all tokens of the row for each token."""
        x = x.contiguous()  # or torch multiplies row by row: a space-time block in bf16 2,600 ms instead of 313
        query, key, value = rearrange(self.qkv(x), "b l (three h d) -> three b h l d", three=3, h=self.heads)
        return self.proj(rearrange(F.scaled_dot_product_attention(query, key, value), "b h l d -> b l (h d)"))


class MLP(nn.Module):
    """Two linear layers on each token."""

    def __init__(self, width: int, *, hidden: int, activation: Activation = "gelu") -> None:
        super().__init__()
        self.activation = activation
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """As many numbers a token as came in."""
        return self.fc2(activate(self.fc1(x), self.activation))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(
        self, width: int, *, heads: int, hidden: int, activation: Activation = "gelu", norm_eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, eps=norm_eps)
        self.attention = Attention(width, heads=heads)
        self.norm_mlp = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, hidden=hidden, activation=activation)

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        """The tokens after this block."""
        x = x + self.attention(self.norm_attention(x))
        return x + self.mlp(self.norm_mlp(x))


def zero_init(layer: nn.Linear | nn.Conv1d) -> None:
    """Set the layer's weights to zero, so that a residual branch that it ends begins as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def make_attention_inputs_contiguous(network: nn.Module) -> nn.Module:
    """Make each nn.MultiheadAttention of a network take contiguous inputs; its outputs stay the same.

    With batch_first, torch transposes the tokens and then multiplies position by position, with a copy of the weights
    each. Without that, CLIP's ViT-B/32 encodes 8 pictures on two cores in an eighth of the time in bf16, and in six
    sevenths in fp32.
    """
    for module in network.modules():
        if isinstance(module, nn.MultiheadAttention) and module.batch_first:
            module.register_forward_pre_hook(_contiguous_inputs)
    return network


def _contiguous_inputs(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    query, key, value, *rest = given
    if query is key is value and query.ndim == 3:
        query = key = value = query.transpose(0, 1).contiguous().transpose(0, 1)
    return query, key, value, *rest


def interpolate_positions(table: Float[Tensor, "t *rest d"], frames: int) -> Float[Tensor, "t2 *rest d"]:
    """Interpolate position embeddings linearly to another number of time steps; the same table where it fits."""
    if len(table) == frames:
        return table
    rows = rearrange(table, "t ... d -> 1 (... d) t")
    stretched = F.interpolate(rows, size=frames, mode="linear", align_corners=False)
    return stretched[0].T.reshape(frames, *table.shape[1:])


def sinusoidal_positions(length: int, width: int) -> Float[Tensor, "l d"]:
    """Compute sinusoidal position embeddings: sines in even columns, cosines in odd ones (arXiv 1706.03762, 3.5)."""
    if width % 2:
        raise ValueError(f"width is {width}; sines and cosines need an even one")
    # In 64 bits: an angle of 1,568 in 32 would be off by 1e-4.
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10_000.0) / width))
    angles = torch.arange(length)[:, None] * rates
    return rearrange([angles.sin(), angles.cos()], "two l half -> l (half two)").float()


def init_positions(length: int, width: int) -> Float[Tensor, "l d"]:
    """Initialise a learnt position embedding with sines, which differ in every two rows; the width may be odd."""
    return sinusoidal_positions(length, width + width % 2)[:, :width].clone()


def sinusoidal_grid(steps: int, rows: int, columns: int, *, width: int) -> Float[Tensor, "t h w d"]:
    """Compute sinusoidal position embeddings in time and space: of step, row and column, concatenated.

    Side by side and not added up, or the second step's first place would equal the first step's second. Each axis has
    a third of `width`, time what is over as well; ValueError for a width under 6 or an odd one. Source: "sinusoidal_3d"
    of the ViViT that its authors published (google-research/scenic, `get_fixed_sincos_position_embedding`), which takes
    multiples of 6 alone and has its columns in another order.
    """
    if width < 6:
        raise ValueError(f"width is {width}; each of three axes needs a sine and a cosine")
    place = width // 6 * 2
    axes = (
        repeat(sinusoidal_positions(steps, width - 2 * place), "t d -> t h w d", h=rows, w=columns),
        repeat(sinusoidal_positions(rows, place), "h d -> t h w d", t=steps, w=columns),
        repeat(sinusoidal_positions(columns, place), "w d -> t h w d", t=steps, h=rows),
    )
    return torch.cat(axes, dim=-1)
