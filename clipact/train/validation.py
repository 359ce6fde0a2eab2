"""How good a model is while it trains: retrieval on captions, zero-shot recognition on labels.

Figures here choose the best step and show a trend; `clipact eval` is what judges a finished model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipact.data.sources import SourceConfig, TrainingExample
from clipact.errors import ConfigError, choices
from clipact.metrics import recall, top_k
from clipact.models.dual_encoder import unit
from clipact.train.encoded_batches import EncodedBatches

_KS, _TOPS = (1, 5, 10), (1, 5)
_WAYS = ("text_to_visual", "visual_to_text")


@dataclass(frozen=True, kw_only=True)
class ValidationSet:
    """Held-out samples of one source: captions are retrieved both ways, labels are recognised by their prompts.

    The keys are those of a source in data.sources.
    """

    name: str
    manifest: Path | None = None
    root: Path | None = None
    labels: str | None = None
    protocol: str | None = None
    split: str = "dev"
    frames: int = 1
    clips: int = 1
    prompts: str | None = None

    def __post_init__(self) -> None:
        _ = self.source  # which refuses what goes ill together

    @property
    def source(self) -> SourceConfig:
        """The same as something to read from."""
        return SourceConfig(
            manifest=self.manifest,
            root=self.root,
            labels=self.labels,
            protocol=self.protocol,
            split=self.split,
            frames=self.frames,
            clips=self.clips,
            prompts=self.prompts,
        )


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """When a model is judged, and on what.

    every_steps  steps between two judgements; 0 judges after the last step alone
    monitor      the metric whose highest value marks the best step, such as "dev.text_to_visual_recall_1";
           by default the first of the first set
    """

    every_steps: int = 0
    sets: tuple[ValidationSet, ...] = ()
    monitor: str | None = None

    def __post_init__(self) -> None:
        if self.every_steps < 0:
            raise ConfigError(f"validation.every_steps is {self.every_steps}; it is a number of steps, or 0")
        names = [one.name for one in self.sets]
        if len(set(names)) < len(names):
            raise ConfigError(f"validation.sets have the names {', '.join(names)}; each needs its own")

    def check_monitor(self, names: Sequence[str]) -> None:
        """Nothing; ConfigError when `best` is none of the figures that the sets will give."""
        if self.monitor is not None and self.monitor not in names:
            raise ConfigError(f"validation.monitor is {self.monitor!r}; {choices(self.monitor, names)}")

    def pick(self, figures: dict[str, float]) -> float | None:
        """The figure that marks the best step; None when nothing is judged."""
        return figures[self.monitor or next(iter(figures))] if figures else None


def metric_names(entries: Sequence[TrainingExample]) -> tuple[str, ...]:
    """What `validate` calls the figures of these entries: of retrieval where none has a label, else of recognition."""
    if any(entry.label_id is not None for entry in entries):
        return tuple(f"top_{k}" for k in _TOPS)
    return tuple(f"{way}_recall_{k}" for way in _WAYS for k in _KS)


@torch.no_grad()
def validate(feed: EncodedBatches) -> dict[str, float]:
    """The figures of one set, 0..1: recall at 1, 5 and 10 both ways, or top-1 and top-5."""
    visual_ids, clips = feed.embed_clips()
    place = {visual_id: row for row, visual_id in enumerate(visual_ids)}
    entries = [entry for entry in feed.entries if entry.visual_id in place]
    rows = torch.tensor([place[entry.visual_id] for entry in entries])
    if all(entry.label_id is None for entry in entries):
        return _retrieval(feed, entries, clips[rows])
    return _recognition(feed, entries, clips[rows])


def _retrieval(
    feed: EncodedBatches, entries: Sequence[TrainingExample], clips: Float[Tensor, "n d"]
) -> dict[str, float]:
    said = [(sentence, number) for number, entry in enumerate(entries) for sentence in entry.sentences]
    scores = (feed.embed_all([sentence for sentence, _ in said]) @ clips.T).cpu().numpy()
    texts, numbers = np.array([number for _, number in said]), np.arange(len(entries))
    found = (recall(scores, texts, numbers, ks=_KS), recall(scores.T, numbers, texts, ks=_KS))
    return {f"{way}_recall_{k}": share for way, shares in zip(_WAYS, found, strict=True) for k, share in shares.items()}


def _recognition(
    feed: EncodedBatches, entries: Sequence[TrainingExample], clips: Float[Tensor, "n d"]
) -> dict[str, float]:
    prompts = {entry.label_id: entry.sentences for entry in entries}
    number = {label_id: i for i, label_id in enumerate(prompts)}
    said = [(sentence, number[label_id]) for label_id, sentences in prompts.items() for sentence in sentences]
    labels = unit(_sums(feed.embed_all([sentence for sentence, _ in said]), torch.tensor([i for _, i in said])))
    truth = np.array([number[entry.label_id] for entry in entries])
    scores = (clips @ labels.T).cpu().numpy()
    return {f"top_{k}": top_k(scores, truth, k=k) for k in _TOPS}


def _sums(rows: Float[Tensor, "m d"], groups: Int[Tensor, " m"]) -> Float[Tensor, "n d"]:
    return rows.new_zeros((int(groups.max()) + 1, rows.shape[1])).index_add_(0, groups, rows)
