"""Features that frozen bodies made before, served as batches in place of frames and sentences.

Batches come in the same order, with the same sentences and ids, as those of `clipact.data.loader`; only what is in them
is small, so that no worker is needed.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clipact.data.loader import Batch
from clipact.data.order import Stream
from clipact.data.samples import Said, draw_said
from clipact.data.sources import Entry
from clipact.errors import DataError


class VisualFeatures:
    """Features of clips in every view, by visual id; clips of one shape lie in one tensor."""

    def __init__(self, *, views: int) -> None:
        self.views = views
        self.groups: list[Float[Tensor, "v n k ..."]] = []
        self.places: dict[int, tuple[int, int]] = {}  # visual id -> group, row

    def add(self, visual_ids: Sequence[int], features: Float[Tensor, "v n k ..."]) -> None:
        """Take in a row for each visual id."""
        self.places |= {visual_id: (len(self.groups), row) for row, visual_id in enumerate(visual_ids)}
        self.groups.append(features)

    def plain(self) -> Iterator[tuple[list[int], Float[Tensor, "m ..."]]]:
        """Visual ids and features of each clip in the first view, a group at a time."""
        for number, features in enumerate(self.groups):
            visual_ids = [visual_id for visual_id, (group, _) in self.places.items() if group == number]
            clips = features.shape[2]
            yield [visual_id for visual_id in visual_ids for _ in range(clips)], features[0].flatten(0, 1)


class SentenceFeatures:
    """Features of sentences."""

    def __init__(self, sentences: Sequence[str], features: Float[Tensor, "n f"]) -> None:
        self.features = features
        self.places = {sentence: row for row, sentence in enumerate(sentences)}

    def of(self, sentences: Sequence[str]) -> Float[Tensor, "m f"]:
        """A row a sentence."""
        return self.features[[self.places[sentence] for sentence in sentences]]


class FeatureLoader:
    """Batches like `clipact.data.loader.Loader`'s, of features in place of frames."""

    def __init__(self, entries: Sequence[Entry], features: VisualFeatures, *, seed: int, batch: int) -> None:
        self.entries, self.features, self.seed, self.batch = entries, features, seed, batch
        self.stream = Stream(len(entries), seed=seed)

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """The batches of the steps from `first_step` up to and without `last_step`."""
        for step in range(first_step, last_step):
            yield self._batch(range(step * self.batch, (step + 1) * self.batch))

    def _batch(self, stretch: range) -> Batch:
        groups: list[list[tuple[int, int]]] = [[] for _ in self.features.groups]  # view, row
        rows: list[list[tuple[Said, ...]]] = [[] for _ in self.features.groups]  # what is said of each clip
        for place in self.stream.stretch(stretch.start, stretch.stop):
            entry = self.entries[place.entry]
            if (found := self.features.places.get(entry.visual_id)) is None:
                continue  # a file that could not be read, counted and named when it was met
            said, drawn = draw_said(entry, seed=self.seed, epoch=place.epoch)
            group, row = found
            groups[group].append((drawn % self.features.views, row))
            rows[group] += [said] * entry.clips
        visual = []
        for features, chosen in zip(self.features.groups, groups, strict=True):
            if chosen:
                views, numbers = torch.tensor(chosen).unbind(1)
                visual.append(features[views, numbers].flatten(0, 1))
        if not visual:
            raise DataError(f"not one of the {self.batch} files of a batch could be read")
        repeats = tuple(len(said) for group in rows for said in group)
        pairs = [pair for group in rows for said in group for pair in said]
        visual_ids, text_ids, label_ids = torch.tensor([ids for _, ids in pairs]).unbind(1)
        return Batch(
            visual=tuple(visual),
            repeats=repeats,
            sentences=tuple(sentence for sentence, _ in pairs),
            visual_ids=visual_ids,
            text_ids=text_ids,
            label_ids=label_ids,
        )
