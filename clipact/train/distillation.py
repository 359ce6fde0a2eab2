"""Distillation: targets of a batch from an ensemble of trained models.

A teacher encodes each clip once, unaugmented, and each sentence once, before the steps that draw them; the features of
its backbones are cached.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clipact.cache import Cache
from clipact.losses import Targets
from clipact.train.encoded_batches import EncodedBatches
from clipact.train.loader import Batch


class Teachers:
    """An ensemble of teachers; `encoded` are the training examples as each of them encodes them."""

    def __init__(self, encoded: Sequence[EncodedBatches], *, weight: float) -> None:
        self.encoded, self.weight = tuple(encoded), weight
        self._teachers = [_Teacher(one) for one in encoded]

    def in_cache(self, cache: Cache) -> "Teachers":
        """Return the same with nothing encoded yet, and with features in another cache."""
        return Teachers([one.in_cache(cache) for one in self.encoded], weight=self.weight)

    def encode(self, first: int, last: int, *, batch: int) -> None:
        """Encode what the batches from `first` up to and without `last` draw: before them, as precision is halved."""
        for teacher in self._teachers:
            teacher.encode(first, last, batch=batch)

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
        self._clips: dict[int, Tensor] = {}  # a unit vector for each visual id
        self._sentences: dict[str, Tensor] = {}

    @torch.no_grad()
    def encode(self, first: int, last: int, *, batch: int) -> None:
        """Give unit vectors to what the batches draw and has none."""
        drawn = self.encoded.draw(first, last, batch=batch)
        ids = {key.visual_id for key in drawn.clips}.difference(self._clips)
        examples = [example for example in self.encoded.examples if example.visual_id in ids]
        self._clips |= zip(*self.encoded.embed_clips(examples), strict=True)
        if sentences := [sentence for sentence in drawn.sentences if sentence not in self._sentences]:
            self._sentences |= zip(sentences, self.encoded.embed_all(sentences), strict=True)

    def logits(self, batch: Batch) -> Float[Tensor, "b b"]:
        """Scaled cosines of the batch's clips and sentences."""
        clips = torch.stack([self._clips[visual_id] for visual_id in batch.visual_ids.tolist()])
        texts = torch.stack([self._sentences[sentence] for sentence in batch.sentences])
        return self.encoded.encoder.scale * clips.to(self.encoded.device) @ texts.to(self.encoded.device).T
