"""Distillation: targets of a batch from an ensemble of trained models.

A teacher encodes each clip once, unaugmented, and each sentence once, before the first step; the features of its
backbones are cached.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from clipact.losses import Targets
from clipact.train.encoded_batches import EncodedBatches
from clipact.train.loader import Batch


class Teachers:
    """An ensemble of teachers; `encoded` are the training examples as each of them encodes them."""

    def __init__(self, encoded: Sequence[EncodedBatches], *, weight: float) -> None:
        self.weight, self._teachers = weight, [_Teacher(one) for one in encoded]

    def encode_all(self) -> None:
        """Encode every clip and sentence, if that is not done: before the first step, where precision may be halved."""
        for teacher in self._teachers:
            _ = teacher.clips, teacher.sentences

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        """Return the mean of the teachers' softmax over the batch, by clips and by texts, each at its own scale."""
        logits = [teacher.logits(batch) for teacher in self._teachers]
        return (
            torch.stack([some.softmax(1) for some in logits]).mean(0),
            torch.stack([some.T.softmax(1) for some in logits]).mean(0),
        )


class _Teacher:
    def __init__(self, encoded: EncodedBatches) -> None:
        self.encoded = encoded

    @cached_property
    @torch.no_grad()
    def clips(self) -> dict[int, Tensor]:
        """A unit vector for each visual id."""
        return dict(zip(*self.encoded.embed_clips(), strict=True))

    @cached_property
    @torch.no_grad()
    def sentences(self) -> dict[str, Tensor]:
        """A unit vector for each sentence that the examples may give."""
        texts = sorted({sentence for example in self.encoded.examples for sentence in example.possible_sentences})
        return dict(zip(texts, self.encoded.embed_all(texts), strict=True))

    def logits(self, batch: Batch) -> Float[Tensor, "b b"]:
        """Scaled cosines of the batch's clips and sentences."""
        clips = torch.stack([self.clips[visual_id] for visual_id in batch.visual_ids.tolist()])
        texts = torch.stack([self.sentences[sentence] for sentence in batch.sentences])
        return self.encoded.encoder.scale * clips.to(self.encoded.device) @ texts.to(self.encoded.device).T
