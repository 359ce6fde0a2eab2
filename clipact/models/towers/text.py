"""A BERT encoder for sentences: token embeddings, post-norm transformer layers, the mean over the tokens, a head.

The architecture of arXiv 1810.04805 without its pooler, as sentence encoders such as MiniLM (arXiv 2002.10957) use it.
All sentences are of the first kind, so that the embedding of that kind is part of the positions. WordPiece comes from
`tokenizers`; its table is the only file that is opened here.
"""

import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from clipact.config import check_probability
from clipact.errors import ModelError
from clipact.models.towers.tower import HasHead, Head, TextTower

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER = "tokenizer.json"
_NORM_EPS = 1e-12  # BERT's, not torch's 1e-5


class BertText(TextTower, HasHead):
    """Sentences in, the mean of their tokens' features through a head out."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sizes of the encoder; the defaults are MiniLM-L6's.

        max_tokens  longer sentences are cut there, the two special tokens counted
        pad_id      the token that fills a batch and is never looked at
        dropout     in training, of the token embeddings and of what each layer adds (BERT's own is 0.1)
        """

        vocabulary: int = 30522
        width: int = 384
        layers: int = 6
        heads: int = 12
        hidden: int = 1536
        max_tokens: int = 128
        pad_id: int = 0
        dropout: float = 0.0
        head: Head.Config = field(default_factory=Head.Config)

        def __post_init__(self) -> None:
            check_probability("dropout", self.dropout)

    def __init__(self, config: Config, tokenizer_file: Path) -> None:
        super().__init__()
        self.config = config
        self.tokenizer_file = tokenizer_file
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.max_tokens, config.width)
        self.norm = nn.LayerNorm(config.width, eps=_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            Layer(config.width, heads=config.heads, hidden=config.hidden, dropout=config.dropout)
            for _ in range(config.layers)
        )
        self.head = Head(config.width, config.head)
        self.dim = self.head.dim

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """The WordPiece tokenizer, read from its file the first time; ModelError when the file is not one."""
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(self.tokenizer_file))
        except Exception as error:  # tokenizers raises no narrower kind
            raise ModelError(f"{self.tokenizer_file} cannot be read as a tokenizer: {error}") from error
        tokenizer.enable_truncation(self.config.max_tokens)
        tokenizer.enable_padding(pad_id=self.config.pad_id)
        # "[PAD]" typed by a user is five ordinary characters, not the token that is never looked at.
        tokenizer.encode_special_tokens = True
        return tokenizer

    def tokenize(self, sentences: Sequence[str]) -> Int[Tensor, "b l"]:
        """Token ids, padded to the longest sentence; sentences are cut at `max_tokens`."""
        return torch.tensor([encoded.ids for encoded in self.tokenizer.encode_batch(list(sentences))])

    def features(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b f"]:
        """What the encoder makes of each sentence before its head: the mean over all tokens but padding."""
        real = ids != self.config.pad_id
        # Not under no_grad: gradient caching encodes there, and again with a graph, and both give the same bits.
        if ids.device.type != "cpu" or not torch.is_inference_mode_enabled() or bool(real[:, -1].all()):
            return self._read(ids, real)
        # For an answer on a CPU sentences of one length go together: nothing goes into padding (a fifth of the time).
        lengths = ids.shape[1] - real.flip(1).int().argmax(1)
        order = lengths.argsort(stable=True)
        parts = torch.split(order, lengths.bincount().tolist())
        rows = [
            self._read(ids[part, : lengths[part[0]]], real[part, : lengths[part[0]]]) for part in parts if len(part)
        ]
        return torch.cat(rows)[order.argsort()]

    def _read(self, ids: Int[Tensor, "b l"], real: Bool[Tensor, "b l"]) -> Float[Tensor, "b f"]:
        # Without padding there is no mask, and attention takes its fastest path.
        mask = None if bool(real.all()) else rearrange(real, "b l -> b 1 1 l")
        x = self.dropout(self.norm(self.words(ids) + self.positions.weight[: ids.shape[1]]))
        for layer in self.layers:
            x = layer(x, mask)
        weights = rearrange(real, "b l -> b l 1").to(x.dtype)
        return (x * weights).sum(1) / weights.sum(1)

    def forward(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b d"]:
        """The features of each sentence, through the head."""
        return self.head(self.features(ids))

    def save_tokenizer(self, folder: Path) -> None:
        """Copy the tokenizer's table into a checkpoint folder."""
        shutil.copyfile(self.tokenizer_file, folder / TOKENIZER)


class Layer(nn.Module):
    """Self-attention and a two-layer network, each added to its input and normalised afterwards."""

    def __init__(self, width: int, *, heads: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm_attended = nn.LayerNorm(width, eps=_NORM_EPS)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.norm_grown = nn.LayerNorm(width, eps=_NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b l f"], mask: Bool[Tensor, "b 1 1 l"] | None) -> Float[Tensor, "b l f"]:
        """The tokens after this layer; `mask` is False where a token is padding."""
        query, key, value = rearrange(self.qkv(x), "b l (three h f) -> three b h l f", three=3, h=self.heads)
        # Fused attention's backward takes a third of a CPU's step over sentences. Not by whether a graph is wanted:
        # gradient caching encodes without one, and again with one, and both give the same bits.
        plain = x.device.type == "cpu" and not torch.is_inference_mode_enabled()
        with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = self.norm_attended(x + self.dropout(self.proj(rearrange(attended, "b h l f -> b l (h f)"))))
        return self.norm_grown(x + self.dropout(self.fc2(F.gelu(self.fc1(x)))))


class DeferredText(TextTower):
    """A text tower that is loaded at its first use; until then it costs nothing and has no parameters."""

    def __init__(self, load: Callable[[], TextTower], *, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self._load = load
        self.tower: TextTower | None = None
        self.place: Tensor
        self.register_buffer("place", torch.empty(0), persistent=False)  # follows .to(device)

    @property
    def loaded(self) -> bool:
        """Whether the weights have been read."""
        return self.tower is not None

    def materialise(self) -> TextTower:
        """The tower itself, read from disk the first time."""
        if self.tower is None:
            self.tower = self._load().to(self.place.device)
        return self.tower

    def tokenize(self, sentences: Sequence[str]) -> Int[Tensor, "b l"]:
        """Token ids; loads the tower."""
        return self.materialise().tokenize(sentences)

    def forward(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b d"]:
        """The features of each sentence; loads the tower."""
        features: Tensor = self.materialise()(ids)
        return features

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer's files; loads the tower."""
        self.materialise().save_tokenizer(folder)
