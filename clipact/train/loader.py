"""Batches of clips and sentences, decoded in worker processes, the same for any number of them.

What is drawn (the order, captions, crops) follows from the seed, the epoch and the example alone.
Workers fill pieces of few rows and one shape, because a batch is encoded piece by piece, and so that a batch of 32,768
keeps all of them busy. Files that cannot be read are left out of their batch, counted and named; more of them than the
limit end the run.
"""

import atexit
import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from clipact.clip_spec import ClipSpec
from clipact.data.fingerprint import seed_from
from clipact.data.sources import TrainingExample
from clipact.errors import ConfigError, DataError, VideoError
from clipact.train.unreadable_files import count_unreadable, describe_unreadable
from clipact.train.worker_process import end_workers, prepare_worker
from clipact.video.augment import Augment
from clipact.video.load import load_clips


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How a run reads its files.

    augment         how clips are changed at random; left out, they stay as they are
    workers         processes that decode; they change nothing but the speed
    max_unreadable  how many files may be unreadable before the run stops; they are counted and named
    """

    augment: Augment | None = None
    workers: int = 2
    max_unreadable: int = 0

    def __post_init__(self) -> None:
        if self.workers < 0 or self.max_unreadable < 0:
            raise ConfigError(f"workers is {self.workers}, max_unreadable {self.max_unreadable}; none is below 0")


class SamplePosition(NamedTuple):
    """Position in the endless order: the epoch, and the number of the example."""

    epoch: int
    example: int


class EpochSampler:
    """The endless order of `count` samples: each epoch is a new permutation, or always 0..count-1 unshuffled."""

    def __init__(self, count: int, *, seed: int, shuffled: bool = True) -> None:
        assert count > 0
        self.count, self.seed, self.shuffled = count, seed, shuffled
        self._order = lru_cache(maxsize=2)(self._permute)

    def positions(self, start: int, stop: int) -> Iterator[SamplePosition]:
        """Yield the positions from `start` up to and without `stop`."""
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
class DecodedExample:
    """The clips of one example, and the texts of each of them: sentences, and their ids as `pair_ids` says."""

    clips: UInt8[np.ndarray, "k t h w c"]
    texts: tuple[TextWithIds, ...]


@dataclass(frozen=True, kw_only=True)
class UnreadableFile:
    """A file that gave no clips, and the cause."""

    path: str
    cause: str


def draw_texts(example: TrainingExample, *, seed: int, epoch: int) -> tuple[tuple[TextWithIds, ...], int]:
    """Return the sentences of an example in an epoch, none twice, and a seed for whatever else is drawn for it.

    The first sentence and the seed are the same however many sentences are drawn. Each is varied by a draw of its own.
    """
    drawn = seed_from(seed, "sample", epoch, example.name, *example.sentences)
    rest, number = divmod(drawn, len(example.sentences))
    sentences = [example.sentences[number]]
    if example.sentences_drawn > 1:
        others = [sentence for sentence in dict.fromkeys(example.sentences) if sentence != sentences[0]]
        order = np.random.default_rng(seed_from("sentences", rest)).permutation(len(others))
        sentences += [others[i] for i in order[: example.sentences_drawn - 1]]
    if example.caption_augmentation is not None:
        varied = (
            example.caption_augmentation.draw(sentence, seed=seed_from("vary", rest, sentence))
            for sentence in sentences
        )
        sentences = list(dict.fromkeys(varied))
    return tuple((sentence, pair_ids(example, sentence)) for sentence in sentences), rest


def pair_ids(example: TrainingExample, sentence: str) -> tuple[int, int, int]:
    """Ids of the clip, the sentence and the label: two rows of a batch belong together when any of the three agrees.

    What has no label has its sentence's id in that place, too, which makes nothing new agree.
    """
    text_id = seed_from("text", sentence)
    return example.visual_id, text_id, text_id if example.label_id is None else example.label_id


class ClipTextDataset:
    """Examples, decoded by position: `samples[SamplePosition(epoch, example)]`.

    With an `augment` frames are drawn within their segments and changed as it says, anew at each turn; without one
    every turn gives the frames that the spec chooses.
    """

    def __init__(
        self, examples: Sequence[TrainingExample], spec: ClipSpec, *, seed: int, augment: Augment | None = None
    ) -> None:
        self.examples = tuple(examples)
        self.spec = spec
        self.seed = seed
        self.augment = augment

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, position: SamplePosition) -> DecodedExample | UnreadableFile:
        example = self.examples[position.example]
        texts, seed = draw_texts(example, seed=self.seed, epoch=position.epoch)
        try:
            clips = load_clips(
                example.path,
                self.spec.with_frames(example.frames),
                clips=example.clips,
                start_seconds=example.start_seconds,
                end_seconds=example.end_seconds,
                generator=None if self.augment is None else np.random.default_rng(seed),
                augment=self.augment,
            )
        except VideoError as error:
            return UnreadableFile(path=example.path, cause=error.cause)
        frames = clips[0].frames[None] if len(clips) == 1 else np.stack([clip.frames for clip in clips])
        return DecodedExample(clips=frames, texts=texts)


_AHEAD = 4  # pieces that each worker decodes before they are asked for


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The rows of one step: each clip with each of its sentences.

    visual     clips: uint8 frames, in pieces of one shape each; or features that were made of them before
    repeats    the rows of each clip, which come one after the other: as many as it has sentences
    sentences  one a row; those of one file's clips are the same
    visual_ids, text_ids, label_ids  two rows are positives of each other when any of the three agrees
    """

    visual: tuple[UInt8[Tensor, "_ _ h w c"], ...] | tuple[Float[Tensor, "_ ..."], ...]
    repeats: tuple[int, ...]
    sentences: tuple[str, ...]
    visual_ids: Int64[Tensor, " b"]
    text_ids: Int64[Tensor, " b"]
    label_ids: Int64[Tensor, " b"]

    def __len__(self) -> int:
        return len(self.sentences)


class Loader:
    """Batches of `batch` examples each, from one endless stream over all samples.

    An example of k clips, of which n sentences are drawn, has k x n rows.

    chunk             frames in a piece: 64 pictures, or 8 clips of 8 frames
    workers           processes that decode; 0 decodes here
    unreadable_files  files that could not be read so far, with their causes; loaders may share one
    max_unreadable    how many there may be; DataError names them when there are more
    """

    def __init__(
        self,
        samples: ClipTextDataset,
        *,
        batch: int,
        chunk: int,
        workers: int = 0,
        shuffled: bool = True,
        unreadable_files: dict[str, str] | None = None,
        max_unreadable: int = 0,
    ) -> None:
        self.samples, self.batch, self.chunk, self.workers = samples, batch, chunk, workers
        self.sampler = EpochSampler(len(samples), seed=samples.seed, shuffled=shuffled)
        self.unreadable_files = {} if unreadable_files is None else unreadable_files
        self.max_unreadable = max_unreadable

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """The batches of the steps from `first_step` up to and without `last_step`."""
        return self.load(range(step * self.batch, (step + 1) * self.batch) for step in range(first_step, last_step))

    def one_epoch(self) -> Iterator[Batch]:
        """The first epoch alone: every example once, the last batch as small as it comes."""
        count = len(self.samples)
        return self.load(range(i, min(i + self.batch, count)) for i in range(0, count, self.batch))

    def load(self, spans: Iterable[range]) -> Iterator[Batch]:
        """A batch for each span of the stream."""
        sizes: deque[int] = deque()

        def plan() -> Iterator[list[SamplePosition]]:
            for span in spans:
                pieces = self._pieces(span)
                sizes.append(len(pieces))
                yield from pieces

        loaded = iter(self._decoders(plan()))
        if self.workers:  # anew each time, so that it comes before what torch does at exit
            atexit.unregister(end_workers)
            atexit.register(end_workers)
        try:
            for first in loaded:
                # No name is given to the batch here: it would be kept while the next one is read.
                yield self._join([_owned(piece) for piece in (first, *islice(loaded, sizes.popleft() - 1))])
        except RuntimeError as error:  # DataLoader has no narrower kind for a worker that died
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(f"{error}. If memory ran out, take fewer workers or a smaller chunk") from error

    def _pieces(self, span: range) -> list[list[SamplePosition]]:
        """The places of a batch, put together by shape and cut into pieces; the order within a shape is kept."""
        alike: dict[tuple[int, int], list[SamplePosition]] = {}
        for position in self.sampler.positions(span.start, span.stop):
            example = self.samples.examples[position.example]
            alike.setdefault((example.frames, example.clips), []).append(position)
        pieces = []
        for (frames, clips), positions in alike.items():
            size = max(1, self.chunk // (frames * clips))
            pieces += [positions[i : i + size] for i in range(0, len(positions), size)]
        return pieces

    def _decoders(self, plan: Iterator[list[SamplePosition]]) -> "DataLoader[Any]":
        parallel: dict[str, Any] = {}
        if self.workers:
            # A fork of a process with threads (progress bar, OpenMP) may hang; spawned workers each import torch anew.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
            parallel = {"num_workers": self.workers, "multiprocessing_context": context, "prefetch_factor": _AHEAD}
            parallel["worker_init_fn"] = prepare_worker
        return DataLoader(
            self.samples,  # type: ignore[arg-type]  # any object with __getitem__ will do
            batch_sampler=plan,
            collate_fn=_collate,
            # DataLoader draws a seed that nothing here uses: from a generator of its own, so that ours stay untouched.
            generator=torch.Generator(),
            **parallel,
        )

    def _join(self, pieces: Sequence["_Piece"]) -> Batch:
        unreadable = ((one.path, one.cause) for piece in pieces for one in piece.unreadable_files)
        count_unreadable(self.unreadable_files, unreadable, limit=self.max_unreadable)
        sentences = tuple(sentence for piece in pieces for sentence in piece.sentences)
        if not sentences:
            causes = describe_unreadable(self.unreadable_files)
            raise DataError(f"not one of the {self.batch} files of a batch could be read; {causes}")
        visual_ids, text_ids, label_ids = torch.cat([piece.ids for piece in pieces]).unbind(1)
        return Batch(
            visual=tuple(piece.video for piece in pieces if piece.video is not None),
            repeats=tuple(repeat for piece in pieces for repeat in piece.repeats),
            sentences=sentences,
            visual_ids=visual_ids,
            text_ids=text_ids,
            label_ids=label_ids,
        )


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """What a worker sends: clips, and a row for each sentence of each, with its three ids."""

    video: UInt8[Tensor, "n t h w c"] | None
    repeats: tuple[int, ...]
    sentences: tuple[str, ...]
    ids: Int64[Tensor, "b 3"]
    unreadable_files: tuple[UnreadableFile, ...]


def _collate(items: Sequence[DecodedExample | UnreadableFile]) -> _Piece:
    decoded = [item for item in items if isinstance(item, DecodedExample)]
    rows = [text for one in decoded for _ in one.clips for text in one.texts]
    video = None
    if decoded:  # default_collate puts them into memory that is shared with the trainer at once: one copy less
        video = default_collate([torch.from_numpy(one.clips) for one in decoded]).flatten(0, 1)
    return _Piece(
        video=video,
        repeats=tuple(len(one.texts) for one in decoded for _ in one.clips),
        sentences=tuple(sentence for sentence, _ in rows),
        ids=torch.tensor([ids for _, ids in rows], dtype=torch.int64).reshape(-1, 3),
        unreadable_files=tuple(item for item in items if isinstance(item, UnreadableFile)),
    )


def _owned(piece: _Piece) -> _Piece:
    """The piece in ordinary memory: what comes from a worker holds a file handle and shared memory each."""
    if piece.video is None or not piece.video.is_shared():  # type: ignore[no-untyped-call]
        return piece
    return replace(piece, video=piece.video.clone(), ids=piece.ids.clone())
