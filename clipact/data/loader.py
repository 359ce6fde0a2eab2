"""Batches of clips and sentences, decoded in worker processes, the same for any number of them.

Workers fill pieces of few rows and one shape, because a batch is encoded piece by piece, and so that a batch of 32,768
keeps all of them busy. Files that cannot be read are left out of their batch, counted and named; more of them than the
limit end the run.
"""

import atexit
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from clipact.data.dataset import ClipTextDataset, EpochSampler, Example, SamplePosition, UnreadableFile
from clipact.errors import ConfigError, DataError
from clipact.video.augment import Augment


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How a run reads its files.

    augment       how clips are changed at random; left out, they stay as they are
    workers       processes that decode; they change nothing but the speed
    max_unreadable  how many files may be unreadable before the run stops; they are counted and named
    """

    augment: Augment | None = None
    workers: int = 2
    max_unreadable: int = 0

    def __post_init__(self) -> None:
        if self.workers < 0 or self.max_unreadable < 0:
            raise ConfigError(f"workers is {self.workers}, max_unreadable {self.max_unreadable}; none is below 0")


_AHEAD = 4  # pieces that each worker decodes before they are asked for
_CLOSING_SECONDS = 0.5  # for all threads, far more than they need; that of a queue which nobody closed goes on for ever


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The rows of one step: each clip with each sentence that is said of it.

    visual     clips: uint8 frames, in pieces of one shape each; or features that were made of them before
    repeats    the rows of each clip, which come one after the other: as many as sentences are said of it
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
    """Batches of `batch` entries each, from one endless stream over all samples.

    An entry of k clips, of which n sentences are said at its turn, has k x n rows.

    chunk         frames in a piece: 64 pictures, or 8 clips of 8 frames
    workers       processes that decode; 0 decodes here
    broken        files that could not be read so far, with their causes; loaders may share one
    max_unreadable  how many there may be; DataError names them when there are more
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
        self.stream = EpochSampler(len(samples), seed=samples.seed, shuffled=shuffled)
        self.unreadable_files = {} if unreadable_files is None else unreadable_files
        self.max_unreadable = max_unreadable

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """The batches of the steps from `first_step` up to and without `last_step`."""
        return self.load(range(step * self.batch, (step + 1) * self.batch) for step in range(first_step, last_step))

    def once(self) -> Iterator[Batch]:
        """The first epoch alone: every entry once, the last batch as small as it comes."""
        count = len(self.samples)
        return self.load(range(i, min(i + self.batch, count)) for i in range(0, count, self.batch))

    def load(self, stretches: Iterable[range]) -> Iterator[Batch]:
        """A batch for each stretch of the stream."""
        sizes: deque[int] = deque()

        def plan() -> Iterator[list[SamplePosition]]:
            for stretch in stretches:
                pieces = self._pieces(stretch)
                sizes.append(len(pieces))
                yield from pieces

        loaded = iter(self._decoders(plan()))
        if self.workers:  # anew each time, so that it comes before what torch does at exit
            atexit.unregister(_end_workers)
            atexit.register(_end_workers)
        try:
            for first in loaded:
                # No name is given to the batch here: it would be kept while the next one is read.
                yield self._join([_owned(piece) for piece in (first, *islice(loaded, sizes.popleft() - 1))])
        except RuntimeError as error:  # DataLoader has no narrower kind for a worker that died
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(f"{error}. If memory ran out, take fewer workers or a smaller chunk") from error

    def _pieces(self, stretch: range) -> list[list[SamplePosition]]:
        """The places of a batch, put together by shape and cut into pieces; the order within a shape is kept."""
        alike: dict[tuple[int, int], list[SamplePosition]] = {}
        for place in self.stream.stretch(stretch.start, stretch.stop):
            entry = self.samples.entries[place.entry]
            alike.setdefault((entry.frames, entry.clips), []).append(place)
        pieces = []
        for (frames, clips), places in alike.items():
            size = max(1, self.chunk // (frames * clips))
            pieces += [places[i : i + size] for i in range(0, len(places), size)]
        return pieces

    def _decoders(self, plan: Iterator[list[SamplePosition]]) -> "DataLoader[Any]":
        parallel: dict[str, Any] = {}
        if self.workers:
            # A fork of a process with threads (progress bar, OpenMP) may hang; spawned workers each import torch anew.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
            parallel = {"num_workers": self.workers, "multiprocessing_context": context, "prefetch_factor": _AHEAD}
            parallel["worker_init_fn"] = _prepare_worker
        return DataLoader(
            self.samples,  # type: ignore[arg-type]  # any object with __getitem__ will do
            batch_sampler=plan,
            collate_fn=_collate,
            # DataLoader draws a seed that nothing here uses: from a generator of its own, so that ours stay untouched.
            generator=torch.Generator(),
            **parallel,
        )

    def _join(self, pieces: Sequence["_Piece"]) -> Batch:
        self._count_broken(unreadable_files for piece in pieces for unreadable_files in piece.unreadable_files)
        sentences = tuple(sentence for piece in pieces for sentence in piece.sentences)
        if not sentences:
            raise DataError(f"not one of the {self.batch} files of a batch could be read; {self._causes()}")
        visual_ids, text_ids, label_ids = torch.cat([piece.ids for piece in pieces]).unbind(1)
        return Batch(
            visual=tuple(piece.video for piece in pieces if piece.video is not None),
            repeats=tuple(repeat for piece in pieces for repeat in piece.repeats),
            sentences=sentences,
            visual_ids=visual_ids,
            text_ids=text_ids,
            label_ids=label_ids,
        )

    def _count_broken(self, unreadable_files: Iterable[UnreadableFile]) -> None:
        self.unreadable_files.update((one.path, one.cause) for one in unreadable_files)
        if len(self.unreadable_files) > self.max_unreadable:
            raise DataError(
                f"{len(self.unreadable_files)} files could not be read, more than max_unreadable = {self.max_unreadable}; "
                f"{self._causes()}"
            )

    def _causes(self) -> str:
        named = [f"{path}: {cause}" for path, cause in islice(self.unreadable_files.items(), 5)]
        return "; ".join(named) + ". `clipact data check` finds all of them"


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """What a worker sends: clips, and a row for each sentence of each, with its three ids."""

    video: UInt8[Tensor, "n t h w c"] | None
    repeats: tuple[int, ...]
    sentences: tuple[str, ...]
    ids: Int64[Tensor, "b 3"]
    unreadable_files: tuple[UnreadableFile, ...]


def _prepare_worker(_: int) -> None:
    """Leave Ctrl-C and termination, which reach every process of a group, to the one that trains; end when it ends.

    torch's own watch looks at the parent, which is the fork server and outlives a trainer that was killed.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    trainer = multiprocessing.parent_process()
    assert trainer is not None

    def follow() -> None:
        trainer.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _end_workers() -> None:
    """End at exit what is left of them: they ignore the termination that multiprocessing sends, then waits for."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
    # A thread of a queue that has just been closed is still dropping semaphores. If Python ends in the midst of it, its
    # resource tracker warns of leaks, after our last word.
    ending = time.monotonic() + _CLOSING_SECONDS
    for thread in threading.enumerate():
        if thread.name == "QueueFeederThread":
            thread.join(max(0.0, ending - time.monotonic()))


def _collate(items: Sequence[Example | UnreadableFile]) -> _Piece:
    examples = [item for item in items if isinstance(item, Example)]
    rows = [said for one in examples for _ in one.clips for said in one.said]
    video = None
    if examples:  # default_collate puts them into memory that is shared with the trainer at once: one copy less
        video = default_collate([torch.from_numpy(one.clips) for one in examples]).flatten(0, 1)
    return _Piece(
        video=video,
        repeats=tuple(len(one.said) for one in examples for _ in one.clips),
        sentences=tuple(sentence for sentence, _ in rows),
        ids=torch.tensor([ids for _, ids in rows], dtype=torch.int64).reshape(-1, 3),
        unreadable_files=tuple(item for item in items if isinstance(item, UnreadableFile)),
    )


def _owned(piece: _Piece) -> _Piece:
    """The piece in ordinary memory: what comes from a worker holds a file handle and shared memory each."""
    if piece.video is None or not piece.video.is_shared():  # type: ignore[no-untyped-call]
        return piece
    return replace(piece, video=piece.video.clone(), ids=piece.ids.clone())
