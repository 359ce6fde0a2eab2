"""A text tower that knows a fixed list of labels and has a learnt vector for each: the end of a supervised classifier.

What was trained with it is a classifier whose logits are scaled cosines (NormFace, arXiv 1704.06369, section 3.3;
Baseline++ of arXiv 1904.04232, section 2.3): the weights of a last layer without bias, its rows and its input at unit
length. So a supervised model is a dual encoder like any other, and is trained, kept and judged like one; but it has no
word for what it was not trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipact.errors import ConfigError, LabelError, choices
from clipact.models.towers.tower import TextTower


class LabelEmbeddings(TextTower):
    """Labels in, the vector of each out; LabelError for any other sentence."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """The labels, in the order of their vectors, and how many numbers a vector has."""

        labels: tuple[str, ...]
        dim: int = 256

        def __post_init__(self) -> None:
            if not self.labels or len(set(self.labels)) < len(self.labels):
                raise ConfigError(f"labels are {', '.join(self.labels) or 'none'}; at least one, each named once")

    def __init__(self, config: Config, folder: Path | None = None) -> None:
        super().__init__()
        self.config, self.dim = config, config.dim
        self._place = {label: i for i, label in enumerate(config.labels)}
        self.vectors = nn.Parameter(torch.randn(len(config.labels), config.dim) / config.dim**0.5)

    @property
    def labels(self) -> tuple[str, ...]:
        """Those that it knows."""
        return self.config.labels

    def tokenize(self, sentences: Sequence[str]) -> Int[Tensor, "b 1"]:
        """The place of each label in the table."""
        for sentence in sentences:
            if sentence not in self._place:
                raise LabelError(
                    f"{sentence!r} is none of the {len(self.labels)} labels that this model was trained on, and it "
                    f"knows no other words; {choices(sentence, self.labels)}"
                )
        return torch.tensor([[self._place[sentence]] for sentence in sentences], dtype=torch.long)

    def forward(self, ids: Int[Tensor, "b 1"]) -> Float[Tensor, "b d"]:
        """The vector of each label, not normalised."""
        return self.vectors[ids[:, 0]]

    def save_tokenizer(self, folder: Path) -> None:
        """Labels stand in the configuration: there is no file."""
