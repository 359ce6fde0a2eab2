"""The two kinds of tower, and nothing else: each turns a batch of one modality into one matrix of features.

Towers do not normalise (DualEncoder alone does), do not open files and do not know each other.
A tower that can stand in a checkpoint folder says so with `config` (a frozen dataclass, its Config) and is made
again by `from_config`; the tables in `clipact.towers` name the classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float, Int
from torch import Tensor, nn

from clipact.clip_spec import ClipSpec


class ImageTower(nn.Module, ABC):
    """One picture in, one vector of `dim` features out. `spec` says how pictures must be prepared."""

    spec: ClipSpec
    dim: int

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


class Headed(ABC):
    """What a tower says of itself, besides, when its output is `head(features(inputs))`.

    Training may leave such a tower's body as it is, keep what it makes of the data, and teach the head alone.
    """

    head: nn.Module

    @abstractmethod
    def features(self, inputs: Tensor, /) -> Tensor:
        """What the head is given."""


class Shiftable(ABC):
    """What an image tower says of itself, besides, when frames may lend channels to their neighbours inside it.

    residual_branches  modules whose input feeds a residual branch and nothing else
    channel_axis       where the channels lie in that input
    """

    channel_axis: int

    @property
    @abstractmethod
    def residual_branches(self) -> Sequence[nn.Module]:
        """The modules, in order."""


class PromptsText(ABC):
    """What a visual tower says of itself, besides, when a sentence's features depend on the clip it is compared with.

    Such a model's sentences have no embeddings of their own: none that could be kept, indexed or taught apart.
    """

    @abstractmethod
    def prompted(self, video: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Of `text`, (n, d) as the text tower gives it: the features of each clip (b, d), and of each sentence
        beside each clip (b, n, d).
        """
