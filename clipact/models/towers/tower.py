"""Base classes of image, video and text towers, what some offer besides, and the projection head of most.

Each tower turns a batch of one modality into one matrix of features. Towers do not normalise: DualEncoder alone does.
A tower that can be saved keeps its `config`, a frozen dataclass; from it, and from the name that the tables in
`clipact.models.towers` give its class, it is made again.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from clipact.clip_spec import ClipSpec
from clipact.config import check_probability
from clipact.errors import ConfigError

# Those of torch.nn.init that ask a mode by their own names and then go on without it: newer torch has more of them.
_DRAWS = {Tensor.normal_, Tensor.uniform_, init.normal_, init.uniform_, init.kaiming_uniform_}


class SkipInit(TorchFunctionMode):
    """Skip the initialisation of new weights, which a checkpoint overwrites (ViT-B-32: 0.1 s, not 3.1)."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The call itself, unless it draws numbers in place."""
        named = kwargs or {}
        if function in _DRAWS:
            return args[0] if args else named["tensor"]
        return function(*args, **named)


class ImageTower(nn.Module, ABC):
    """One picture in, one vector of `dim` features out.

    spec     how pictures must be prepared
    at_once  how many pictures a CPU is quickest with at a time, where fewer were measured to be quicker than many
    """

    spec: ClipSpec
    dim: int
    at_once: int | None = None

    @abstractmethod
    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The features of each picture."""


class VisualTower(nn.Module, ABC):
    """One clip in, one vector of `dim` features out.

    spec        how clips must be prepared
    order_free  True when the order of the frames cannot change the output
    """

    spec: ClipSpec
    dim: int
    order_free: bool

    @abstractmethod
    def forward(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b d"]:
        """The features of each clip."""


class TextTower(nn.Module, ABC):
    """Sentences in, one vector of `dim` features each out; the tokenizer belongs to the tower."""

    dim: int

    @abstractmethod
    def tokenize(self, sentences: Sequence[str]) -> Int[Tensor, "b l"]:
        """Token ids, padded; sentences that are too long are cut at the tower's own limit."""

    @abstractmethod
    def forward(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b d"]:
        """The features of each sentence."""

    @abstractmethod
    def save_tokenizer(self, folder: Path) -> None:
        """Write what `tokenize` needs into a checkpoint folder."""


class HasHead(ABC):
    """Interface of towers whose output is `head(features(inputs))`.

    Training may freeze such a tower's backbone, cache its features, and train the head alone.
    """

    head: nn.Module

    @abstractmethod
    def features(self, inputs: Tensor, /) -> Tensor:
        """Return the input of the head."""


class SupportsTemporalShift(ABC):
    """Interface of image towers inside which channels can be shifted between neighbouring frames (TSM).

    A residual branch is named by a module whose input feeds the branch and nothing else, picture by picture, and by the
    axis in that input where the channels lie.
    """

    @property
    @abstractmethod
    def residual_branches(self) -> Sequence[tuple[nn.Module, int]]:
        """Return module and axis of each branch, in order; ConfigError for a network that has none."""


class HasFeatureMaps(ABC):
    """Interface of image towers that have a vector for each position of a picture."""

    @property
    @abstractmethod
    def map_dim(self) -> int:
        """Width of a position's vector; ConfigError for a network without positions."""

    @abstractmethod
    def maps(self, images: Tensor) -> Tensor:
        """Return the vectors of each picture (b, c, h, w) before pooling: (b, rows, columns, map_dim)."""


class ConditionsText(ABC):
    """Interface of visual towers with which a sentence's features depend on the clip it is compared with (X-CLIP).

    Such a model's sentences have no embeddings of their own: none that could be cached, indexed or trained apart.
    """

    @abstractmethod
    def context(self, video: Tensor) -> Tensor:
        """Return all that sentences need to know of each clip (b, m): its features, then what changes theirs."""

    @abstractmethod
    def prompted(self, context: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of each clip (b, d), and of each sentence for each clip (b, n, d).

        `context` is what `context` gives, `text` (n, d) what the text tower gives.
        """


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
