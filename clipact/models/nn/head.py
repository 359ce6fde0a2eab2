"""The small network that carries a tower's features into the shared space."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clipact.config import check_probability
from clipact.errors import ConfigError


class Head(nn.Module):
    """A projection, then residual blocks: normalised features become `dim` numbers."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Widths of a head.

        dim      numbers that come out
        hidden   width inside a residual block
        blocks   how many residual blocks
        dropout  in training, on the input and inside the blocks
        norm_eps of the norm before the projection
        """

        dim: int = 256
        hidden: int = 1024
        blocks: int = 1
        dropout: float = 0.0
        norm_eps: float = 1e-5

        def __post_init__(self) -> None:
            check_probability("dropout", self.dropout)
            if self.dim < 1 or self.hidden < 1 or self.blocks < 0:
                raise ConfigError(
                    f"a head's dim is {self.dim}, hidden {self.hidden}, blocks {self.blocks}; the widths are at least "
                    "1, and blocks 0"
                )

    def __init__(self, width: int, config: Config) -> None:
        super().__init__()
        self.dim = config.dim
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.project = nn.Linear(width, config.dim)
        self.blocks = nn.Sequential(
            *(ResidualMLP(config.dim, hidden=config.hidden, dropout=config.dropout) for _ in range(config.blocks))
        )

    def forward(self, features: Float[Tensor, "b f"]) -> Float[Tensor, "b d"]:
        """Raw features of the shared space; DualEncoder normalises them."""
        projected: Tensor = self.blocks(self.project(self.dropout(self.norm(features))))
        return projected


class ResidualMLP(nn.Module):
    """A vector plus what two linear layers make of it: x + W2 gelu(W1 norm(x))."""

    def __init__(self, width: int, *, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """As many numbers as came in."""
        return x + self.dropout(self.fc2(self.dropout(F.gelu(self.fc1(self.norm(x))))))
