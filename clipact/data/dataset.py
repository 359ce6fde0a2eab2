"""One entry decoded: the clips and the sentences that it gives at its turn, or why it gives none.

What is drawn (which captions, which crop) hangs on the seed, the epoch and the entry alone, so that any number of
workers, in any order, gives the same. Runs in worker processes: it holds facts, and opens files one at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from clipact.clip_spec import ClipSpec
from clipact.data.fingerprint import seed_from
from clipact.data.sources import TrainingExample
from clipact.errors import VideoError
from clipact.video.augment import Augment
from clipact.video.load import load_clips


class SamplePosition(NamedTuple):
    """One sample's turn: which epoch it is, and which entry of the data."""

    epoch: int
    entry: int


class EpochSampler:
    """The endless order of `count` samples: each epoch is a new permutation, or always 0..count-1 unshuffled."""

    def __init__(self, count: int, *, seed: int, shuffled: bool = True) -> None:
        assert count > 0
        self.count, self.seed, self.shuffled = count, seed, shuffled
        self._order = lru_cache(maxsize=2)(self._permute)

    def stretch(self, start: int, stop: int) -> Iterator[SamplePosition]:
        """Whose turn it is from place `start` on, up to and without `stop`."""
        for place in range(start, stop):
            epoch, within = divmod(place, self.count)
            yield SamplePosition(epoch, int(self._order(epoch)[within]))

    def _permute(self, epoch: int) -> np.ndarray:
        if not self.shuffled:
            return np.arange(self.count)
        return np.random.default_rng(seed_from(self.seed, "order", epoch)).permutation(self.count)


TextWithIds = tuple[str, tuple[int, int, int]]
"""A sentence, and three ids: see `pair_ids`."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """The clips of one entry, and what is said of each of them: sentences, and their ids as `pair_ids` says."""

    clips: UInt8[np.ndarray, "k t h w c"]
    said: tuple[TextWithIds, ...]


@dataclass(frozen=True, kw_only=True)
class UnreadableFile:
    """A file that gave no clips, and the cause."""

    path: str
    cause: str


def draw_texts(entry: TrainingExample, *, seed: int, epoch: int) -> tuple[tuple[TextWithIds, ...], int]:
    """What is said at an entry's turn, no sentence twice, and a seed for whatever else is drawn at it.

    The first sentence and the seed are the same however many sentences are drawn. Each is varied by a draw of its own.
    """
    drawn = seed_from(seed, "sample", epoch, entry.name, *entry.sentences)
    rest, number = divmod(drawn, len(entry.sentences))
    sentences = [entry.sentences[number]]
    if entry.drawn > 1:
        others = [sentence for sentence in dict.fromkeys(entry.sentences) if sentence != sentences[0]]
        order = np.random.default_rng(seed_from("sentences", rest)).permutation(len(others))
        sentences += [others[i] for i in order[: entry.drawn - 1]]
    if entry.caption_augmentation is not None:
        varied = (
            entry.caption_augmentation.draw(sentence, seed=seed_from("caption_augmentation", rest, sentence))
            for sentence in sentences
        )
        sentences = list(dict.fromkeys(varied))
    return tuple((sentence, pair_ids(entry, sentence)) for sentence in sentences), rest


def pair_ids(entry: TrainingExample, sentence: str) -> tuple[int, int, int]:
    """Ids of the clip, the sentence and the label: two rows of a batch belong together when any of the three agrees.

    What has no label has its sentence's id in that place, too, which makes nothing new agree.
    """
    text_id = seed_from("text", sentence)
    return entry.visual_id, text_id, text_id if entry.label_id is None else entry.label_id


class ClipTextDataset:
    """Entries, decoded by place: `samples[SamplePosition(epoch, entry)]`.

    With an `augment` frames are drawn within their segments and changed as it says, anew at each turn; without one
    every turn gives the frames that the spec chooses.
    """

    def __init__(
        self, entries: Sequence[TrainingExample], spec: ClipSpec, *, seed: int, augment: Augment | None = None
    ) -> None:
        self.entries = tuple(entries)
        self.spec = spec
        self.seed = seed
        self.augment = augment

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, place: SamplePosition) -> Example | UnreadableFile:
        entry = self.entries[place.entry]
        said, seed = draw_texts(entry, seed=self.seed, epoch=place.epoch)
        try:
            clips = load_clips(
                entry.path,
                self.spec.with_frames(entry.frames),
                clips=entry.clips,
                start_seconds=entry.start_seconds,
                end_seconds=entry.end_seconds,
                generator=None if self.augment is None else np.random.default_rng(seed),
                augment=self.augment,
            )
        except VideoError as error:
            return UnreadableFile(path=entry.path, cause=error.cause)
        frames = clips[0].frames[None] if len(clips) == 1 else np.stack([clip.frames for clip in clips])
        return Example(clips=frames, said=said)
