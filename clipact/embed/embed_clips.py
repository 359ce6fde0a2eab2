"""The one engine from videos to embeddings: rows in, their embeddings out, in order.

Rows are cut into units: as many as fill one batch, most often one. On a CPU a worker decodes and encodes a unit by
itself, with its share of the cores: convolutions of a few pictures wait for each other on two cores, two workers never
do. For a GPU workers decode row by row, and whoever asks for the embeddings encodes unit by unit.

Units are the same whatever is resumed, and on a CPU no row's features depend on what is encoded beside it.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from clipact.cache import content_key
from clipact.data.fingerprint import source_digest
from clipact.embed.clip_source import ClipSource
from clipact.embed.feature_cache import DECODERS, ClipFeatures, FeatureCache
from clipact.embed.feature_collector import BatchEncoder, FeatureCollector
from clipact.embed.journal import Journal
from clipact.embed.options import EmbedOptions
from clipact.embed.video_embedding import VideoEmbedding
from clipact.engines.clip_encoder import ClipEncoder
from clipact.engines.vectors import averaged
from clipact.errors import UsageError, VideoError
from clipact.video.augment import Augment
from clipact.video.clip import Clip
from clipact.video.collect import ClipLedger, Wanted, collect_frames
from clipact.video.load import load_wanted
from clipact.video.open_source import FILE, source_kind
from clipact.work_ahead import work_ahead

_FRAMES_HELD = 1024  # decoded and waiting for a GPU, about 200 MB at 260 pixels
_UNITS_AHEAD = 16  # a worker: what is finished is small, and one long film holds nobody up

DecodedAhead = dict[int, "Future[tuple[Clip, ...]]"]


@dataclass(frozen=True, kw_only=True)
class EmbedRequest:
    """What is asked of the engine for every row.

    encoder    what encodes, and which clips of a video
    keep_clips whether each clip's embedding is given, or one unit vector, their mean
    features   whether the backbone's features are given in place of embeddings
    augment    changes clips at random, as a row's `draw` seeds it
    decoded    clips of the first rows, by their numbers, that are being decoded already; taken out as they are used
    known      gives what is known of a row without decoding it, such as from a file of features; None for nothing
    """

    encoder: ClipEncoder
    keep_clips: bool = True
    features: bool = False
    augment: Augment | None = None
    decoded: DecodedAhead = field(default_factory=dict)
    known: Callable[[ClipSource], VideoEmbedding | None] | None = None


def embed_clips(
    rows: Iterable[ClipSource],
    request: EmbedRequest | ClipEncoder,
    options: EmbedOptions | None = None,
    *,
    identity: str = "",
    seconds: dict[str, float] | None = None,
    description: str = "embedding",
) -> Iterator[VideoEmbedding]:
    """Embed each row, in order; what a resumed journal holds is not embedded again.

    Args:
        rows: What to embed; an iterator is read only as far as the workers are ahead.
        request: What is asked for; an encoder alone stands for a request with nothing else.
        options: How it is carried out.
        identity: Of the rows, where there is a journal; by default a hash of their names, all of which are then read.
        seconds: Is added to, by what the time was spent on: lookup, decode, encode, store, of all workers together.
        description: What the progress bar says.

    Returns:
        An embedding a row; one that cannot be read has its cause.
    """
    options = options or EmbedOptions()
    if isinstance(request, ClipEncoder):
        request = EmbedRequest(encoder=request)
    if options.journal is not None and not identity:
        rows = list(rows)
        for row in rows:
            if not isinstance(row.source, str | Path):
                raise UsageError(f"{row.name} has no path: a run with a journal embeds what it can find again")
        identity = content_key(*(f"{row.title} {Path(str(row.source))}" for row in rows))
    total = len(rows) if isinstance(rows, Sized) else None
    found = _Engine(request, options, {} if seconds is None else seconds).run(rows, identity=identity, total=total)
    with closing(found):  # also when the receiver of a row raises: the threads of the tensor library are set back
        yield from options.progress(found, total, description)


@dataclass(kw_only=True, eq=False)
class _Job:
    """A row under way: its features from the cache, or its clips where they are decoded, or why it has none."""

    row: ClipSource
    digest: str
    key: str
    features: ClipFeatures | None = None
    clips: tuple[Clip, ...] = ()
    cause: str = ""
    known: VideoEmbedding | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has neither features nor a cause."""
        return self.features is None and self.known is None and not self.cause


class _Engine:
    def __init__(self, request: EmbedRequest, options: EmbedOptions, seconds: dict[str, float]) -> None:
        self.request, self.options, self.seconds = request, options, seconds
        self.adding = threading.Lock()  # to `seconds`, from several workers
        self.encoder = request.encoder.with_frames_at_once(options.frames_at_once)
        self.store = FeatureCache(options.cache, self.encoder, augment=request.augment)
        frames = self.encoder.clips_a_video * self.encoder.spec.frames
        self.unit = max(1, self.encoder.frames_at_once // frames)
        self.fits_in_memory = frames <= _FRAMES_HELD
        self.one_reader = threading.Lock()  # of what can be read once, such as standard input
        self.stopping = threading.Event()

    def run(
        self, rows: Iterable[ClipSource], *, identity: str, total: int | None
    ) -> Generator[VideoEmbedding, None, None]:
        """Yield the embedding of each row."""
        journal, done = None, 0
        if self.options.journal is not None:
            what = f"{self.unit} {self.request.keep_clips} {self.request.features}"
            journal = Journal(
                self.options.journal, content_key("run 3", self.encoder.identity, what, DECODERS, identity)
            )
            done = journal.resume() if self.options.resume else 0
            if not self.options.resume:
                journal.start()
            for unit in journal.read():
                yield from unit
        numbered = islice(enumerate(rows), done, None)
        units = iter(lambda: list(islice(numbered, self.unit)), [])
        left = None if total is None else -((done - total) // self.unit)
        workers = self.options.workers_for(left)
        try:
            for embedded in (self._on_cores if self.encoder.on_cpu else self._on_gpu)(units, workers):
                if journal is not None:
                    journal.append(embedded)
                yield from embedded
        finally:
            self.stopping.set()  # nobody waits for what another process is computing

    def _on_cores(self, units: Iterator[list[tuple[int, ClipSource]]], workers: int) -> Iterator[list[VideoEmbedding]]:
        def work(unit: list[tuple[int, ClipSource]]) -> list[VideoEmbedding]:
            return self._embed([self._look_up(number, row) for number, row in unit])

        with self.encoder.threads(self.options.threads_for(workers)):
            ahead = 2 if self.request.features else _UNITS_AHEAD
            yield from work_ahead(work, units, depth=ahead * workers, workers=workers)

    def _on_gpu(self, units: Iterator[list[tuple[int, ClipSource]]], workers: int) -> Iterator[list[VideoEmbedding]]:
        """Units whose rows the workers have decoded ahead, encoded here."""
        frames = self.encoder.clips_a_video * self.encoder.spec.frames
        held = max(2 * self.unit, min(64, _FRAMES_HELD // frames), 2)

        def work(numbered: tuple[int, ClipSource]) -> _Job:
            job = self._look_up(*numbered)
            if job.is_open and not job.clips and self.fits_in_memory and source_kind(job.row.source) == FILE:
                self._decode(job)
            return job

        ahead = work_ahead(work, (one for unit in units for one in unit), depth=held, workers=workers)
        while jobs := list(islice(ahead, self.unit)):
            yield self._embed(jobs)

    def _look_up(self, number: int, row: ClipSource) -> _Job:
        if self.request.known is not None and (known := self.request.known(row)) is not None:
            return _Job(row=row, digest="", key="", known=known)
        begun = time.perf_counter()
        digest = source_digest(row.source)
        job = _Job(row=row, digest=digest, key=self.store.key(row, digest))
        job.features = self.store.read(job.key, name=row.name)
        self._spent("lookup", begun)
        decoded = self.request.decoded.pop(number, None)
        if decoded is not None and job.features is None:
            try:
                job.clips = decoded.result()
            except VideoError as error:
                job.cause = error.cause
        return job

    def _embed(self, jobs: Sequence[_Job]) -> list[VideoEmbedding]:
        """Give features to each that lacks them, once where several ask for the same, and embeddings to all."""
        missing = {job.key or id(job): job for job in jobs if job.is_open}
        with self.store.claim([job.key for job in missing.values()], stopping=self.stopping):
            for job in missing.values():  # another process may have computed them meanwhile
                job.features = self.store.read(job.key, name=job.row.name)
            self._encode([job for job in missing.values() if job.features is None])
        for job in jobs:
            if job.is_open:
                first = missing[job.key or id(job)]
                job.features, job.cause = first.features, first.cause
        return [self._embedding(job) for job in jobs]

    def _encode(self, jobs: Sequence[_Job]) -> None:
        batch = BatchEncoder(self.encoder, shared=self.unit > 1 and self.encoder.on_cpu)
        begun = time.perf_counter()
        made: list[tuple[_Job, FeatureCollector, tuple[ClipLedger, ...]]] = []
        for job in jobs:
            collector = FeatureCollector(self.encoder, batch, alone=self.unit == 1)
            try:
                made.append((job, collector, self._collect(job, collector)))
            except VideoError as error:
                job.cause = error.cause
        batch.flush()
        spent = time.perf_counter() - begun
        self._spent("encode", seconds=batch.seconds)
        self._spent("decode", seconds=spent - batch.seconds)
        begun = time.perf_counter()
        for job, collector, ledgers in made:
            job.features = ClipFeatures(features=collector.features, ledgers=ledgers)
            self.store.write(job.key, job.features)
        self._spent("store", begun)

    def _collect(self, job: _Job, collector: FeatureCollector) -> tuple[ClipLedger, ...]:
        with nullcontext() if source_kind(job.row.source) == FILE else self.one_reader:
            return self._collect_clips(job, collector)

    def _collect_clips(self, job: _Job, collector: FeatureCollector) -> tuple[ClipLedger, ...]:
        if not job.clips and self.request.augment is None:
            return collect_frames(
                job.row.source,
                self._wanted(job.row),
                collector,
                time_limit_seconds=self.options.time_limit_seconds,
                progress=self.options.video_progress,
            )
        if not job.clips:
            self._decode(job)
            if job.cause:
                raise VideoError(job.row.name, job.cause)
        clips, job.clips = job.clips, ()
        collector.collect_clips(clips, crops=self.encoder.crops, apart=self.request.augment is not None)
        return tuple(_ledger(clip) for clip in clips)

    def _decode(self, job: _Job) -> None:
        begun = time.perf_counter()
        try:
            job.clips = load_wanted(
                job.row.source,
                self._wanted(job.row),
                time_limit_seconds=self.options.time_limit_seconds,
                progress=self.options.video_progress,
            )
        except VideoError as error:
            job.cause = error.cause
        if not self.encoder.on_cpu:
            self._spent("decode", begun)

    def _wanted(self, row: ClipSource) -> Wanted:
        augment = self.request.augment
        return Wanted(
            spec=self.encoder.spec,
            clips=self.encoder.clips,
            crops=self.encoder.crops,
            start_seconds=row.start_seconds,
            end_seconds=row.end_seconds,
            decoder=self.encoder.decoder,
            # Workers decode side by side: FFmpeg's threads would add work, and what they make of a damaged frame is
            # another thing each time.
            decoder_threads=1,
            augment=augment,
            generator=None if augment is None else np.random.default_rng(row.draw),
        )

    def _embedding(self, job: _Job) -> VideoEmbedding:
        if job.known is not None:
            return job.known
        found, span = job.features, (job.row.start_seconds, job.row.end_seconds)
        if found is None:
            return VideoEmbedding(name=job.row.name, cause=job.cause, span=span)
        embeddings = None
        if not self.request.features:
            at_once = max(1, _FRAMES_HELD // self.encoder.spec.frames)
            starts = range(0, len(found.features), at_once)
            pieces = [self.encoder.head(found.features.of(slice(start, start + at_once))) for start in starts]
            embeddings = np.concatenate(pieces)
            if not self.request.keep_clips:
                embeddings = averaged(embeddings, "embeddings")
        first = found.ledgers[0]
        return VideoEmbedding(
            name=job.row.name,
            span=span,
            embeddings=embeddings,
            features=found.features.of(slice(None)) if self.request.features else None,
            digest=job.digest,
            notes=tuple(dict.fromkeys(note for ledger in found.ledgers for note in ledger.notes)),
            decoder=first.decoder,
            duration_seconds=first.duration_seconds,
            stamps=tuple(ledger.stamps for ledger in found.ledgers[:: self.encoder.crops]),
        )

    def _spent(self, activity: str, begun: float | None = None, *, seconds: float = 0.0) -> None:
        spent = seconds if begun is None else time.perf_counter() - begun
        with self.adding:
            self.seconds[activity] = self.seconds.get(activity, 0.0) + spent


def _ledger(clip: Clip) -> ClipLedger:
    return ClipLedger(
        stamps=clip.stamps,
        notes=clip.notes,
        decoder=clip.decoder,
        duration_seconds=clip.duration_seconds,
        source=clip.source,
    )
