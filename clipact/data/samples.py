"""One entry decoded: the clips and the sentence that it gives at its turn, or why it gives none.

What is drawn (which caption, which crop) hangs on the seed, the epoch and the entry alone, so that any number of
workers, in any order, gives the same. Runs in worker processes: it holds facts, and opens files one at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from clipact.clip_spec import ClipSpec
from clipact.data.order import Place, seed_from
from clipact.data.sources import Entry
from clipact.errors import VideoError
from clipact.video.augment import Augment
from clipact.video.load import load_clips


@dataclass(frozen=True, kw_only=True)
class Example:
    """The clips of one entry, each of which goes with the sentence; `ids` as `pair_ids` says."""

    clips: UInt8[np.ndarray, "k t h w c"]
    sentence: str
    ids: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A file that gave no clips, and the cause."""

    path: str
    cause: str


def draw_sentence(entry: Entry, *, seed: int, epoch: int) -> tuple[str, int]:
    """The sentence of an entry's turn, and a seed for whatever else is drawn at it."""
    drawn = seed_from(seed, "sample", epoch, entry.name, *entry.sentences)
    rest, number = divmod(drawn, len(entry.sentences))
    return entry.sentences[number], rest


def pair_ids(entry: Entry, sentence: str) -> tuple[int, int, int]:
    """Ids of the clip, the sentence and the label: two rows of a batch belong together when any of the three agrees.

    What has no label has its sentence's id in that place, too, which makes nothing new agree.
    """
    text_id = seed_from("text", sentence)
    return entry.visual_id, text_id, text_id if entry.label_id is None else entry.label_id


class Samples:
    """Entries, decoded by place: `samples[Place(epoch, entry)]`.

    With an `augment` frames are drawn within their segments and changed as it says, anew at each turn; without one
    every turn gives the frames that the spec chooses.
    """

    def __init__(self, entries: Sequence[Entry], spec: ClipSpec, *, seed: int, augment: Augment | None = None) -> None:
        self.entries = tuple(entries)
        self.spec = spec
        self.seed = seed
        self.augment = augment

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, place: Place) -> Example | Broken:
        entry = self.entries[place.entry]
        sentence, seed = draw_sentence(entry, seed=self.seed, epoch=place.epoch)
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
            return Broken(path=entry.path, cause=error.cause)
        frames = clips[0].frames[None] if len(clips) == 1 else np.stack([clip.frames for clip in clips])
        return Example(clips=frames, sentence=sentence, ids=pair_ids(entry, sentence))
