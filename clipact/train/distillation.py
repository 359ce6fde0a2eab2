"""Models that a run learns from beside its data: what they make of a batch is what the pupil should make of it.

A teacher sees each clip once, as it is, and reads each sentence once, before the first step; what its bodies make of
them is kept in the store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from clipact.data.loader import Batch
from clipact.errors import ConfigError
from clipact.losses import Targets
from clipact.train.encoded_batches import EncodedBatches


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Whom a run learns from.

    teachers  names that `clipact.models.zoo.load` knows: an ensemble, whose probabilities are averaged
    weight    of the loss that is theirs; the ids of the data have the rest
    """

    teachers: tuple[str, ...] = ()
    weight: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise ConfigError(f"distillation.weight is {self.weight:g}; it lies above 0, and is 1 at most")


class Teachers:
    """What teachers make of a batch; `feeds` are each one's, over the entries that are learnt from, as they are."""

    def __init__(self, feeds: Sequence[EncodedBatches], *, share: float) -> None:
        self.share, self._teachers = share, [_Teacher(feed) for feed in feeds]

    def look(self) -> None:
        """See and read all that there is, if that is not done: before the first step, where precision may be halved."""
        for teacher in self._teachers:
            _ = teacher.clips, teacher.sentences

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        """The mean of the teachers' softmax over the batch, by its clips and by its texts, each at its own scale."""
        logits = [teacher.logits(batch) for teacher in self._teachers]
        return (
            torch.stack([some.softmax(1) for some in logits]).mean(0),
            torch.stack([some.T.softmax(1) for some in logits]).mean(0),
        )


class _Teacher:
    def __init__(self, feed: EncodedBatches) -> None:
        self.feed = feed

    @cached_property
    @torch.no_grad()
    def clips(self) -> dict[int, Tensor]:
        """A unit vector for each visual id."""
        return dict(zip(*self.feed.embed_clips(), strict=True))

    @cached_property
    @torch.no_grad()
    def sentences(self) -> dict[str, Tensor]:
        """A unit vector for each sentence that the entries may say."""
        said = sorted({sentence for entry in self.feed.entries for sentence in entry.sayings})
        return dict(zip(said, self.feed.embed_all(said), strict=True))

    def logits(self, batch: Batch) -> Float[Tensor, "b b"]:
        """Scaled cosines of the batch's clips and sentences."""
        clips = torch.stack([self.clips[visual_id] for visual_id in batch.visual_ids.tolist()])
        texts = torch.stack([self.sentences[sentence] for sentence in batch.sentences])
        return self.feed.encoder.scale * clips.to(self.feed.device) @ texts.to(self.feed.device).T
