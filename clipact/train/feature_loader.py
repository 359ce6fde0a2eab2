"""Batches of cached features in place of frames."""

from collections.abc import Iterator, Sequence

import torch

from clipact.data.sources import TrainingExample
from clipact.errors import DataError
from clipact.train.drawn_inputs import ClipKey
from clipact.train.frozen_features import VisualFeatures
from clipact.train.loader import Batch, EpochSampler, TextWithIds, draw_texts


class FeatureLoader:
    """Batches like `clipact.train.loader.Loader`'s, of features that are in memory.

    Args:
        examples: What batches are drawn from.
        features: Of all that the steps draw; what is not there could not be read.
        seed: Of the order, and of what is drawn.
        batch: Examples in a batch.
        views: Versions of each clip.
    """

    def __init__(
        self, examples: Sequence[TrainingExample], features: VisualFeatures, *, seed: int, batch: int, views: int
    ) -> None:
        self.examples, self.features, self.seed, self.batch, self.views = examples, features, seed, batch, views
        self.sampler = EpochSampler(len(examples), seed=seed)

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """The batches of the steps from `first_step` up to and without `last_step`."""
        for step in range(first_step, last_step):
            yield self._batch(range(step * self.batch, (step + 1) * self.batch))

    def _batch(self, span: range) -> Batch:
        drawn: dict[tuple[int, int], list[tuple[ClipKey, tuple[TextWithIds, ...]]]] = {}  # by shape
        for position in self.sampler.positions(span.start, span.stop):
            example = self.examples[position.example]
            texts, number = draw_texts(example, seed=self.seed, epoch=position.epoch)
            key = ClipKey.of(example, number % self.views)
            if key in self.features:  # else its file could not be read, counted and named when it was met
                drawn.setdefault(key.shape, []).append((key, texts))
        if not drawn:
            raise DataError(f"not one of the {self.batch} files of a batch could be read")
        pairs = [pair for shape in sorted(drawn) for pair in drawn[shape]]
        rows = [texts for key, texts in pairs for _ in range(key.clips)]  # the texts of each clip
        visual_ids, text_ids, label_ids = torch.tensor([ids for texts in rows for _, ids in texts]).unbind(1)
        return Batch(
            visual=tuple(self.features.of([key for key, _ in drawn[shape]]) for shape in sorted(drawn)),
            repeats=tuple(len(texts) for texts in rows),
            sentences=tuple(sentence for texts in rows for sentence, _ in texts),
            visual_ids=visual_ids,
            text_ids=text_ids,
            label_ids=label_ids,
        )
