"""Encode samples: decoded ahead in threads, encoded in batches over files, kept in the cache and the journal.

A unit is as many files as fill one batch. On a CPU a worker decodes and encodes a unit by itself, with its share of
the cores: convolutions of a few pictures wait for each other on two cores, two workers never do. For a GPU workers
decode file by file, and whoever asks for the embeddings encodes.

Units are the same whatever is resumed, and a file that this run has put into the cache is encoded again when it comes
a second time: so the bits depend neither on when a run was killed, nor on which thread was first.
"""

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL
import torch
from jaxtyping import Float32, UInt8

from clipact.cache import Cache, content_key
from clipact.data.fingerprint import file_digest
from clipact.errors import CacheError, VideoError
from clipact.evaluate.encoder_adapter import ClipEncoder, cache_key
from clipact.evaluate.journal import Journal, SampleEmbedding
from clipact.evaluate.samples import EvalSample, EvalSamples
from clipact.progress import ProgressBar, no_progress
from clipact.video.load import load_clips, work_ahead

DECODERS = f"pyav {av.__version__}, pillow {PIL.__version__}"
_FRAMES_HELD = 1024  # decoded and waiting, about 200 MB at 260 pixels


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Say how an evaluation is carried out: nothing here changes its result by more than rounding.

    workers         threads that decode ahead, and on a CPU encode; by default one a core, two at least
    frames_at_once  encoded together, over files; by default 8 on a CPU, 256 elsewhere
    cache           where embeddings are looked for and kept; None: nowhere
    journal         a file that makes the run safe from being killed
    resume          whether a journal that is there is taken up, or begun anew
    progress        shows the samples as they are done
    run             more to say in the result: command, protocol, metric
    """

    workers: int | None = None
    frames_at_once: int | None = None
    cache: Cache | None = None
    journal: Path | None = None
    resume: bool = False
    progress: ProgressBar = no_progress
    run: Mapping[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True, eq=False)
class _File:
    """A sample's file: its features from the cache, or its views, or the cause why it has none; then its embeddings."""

    digest: str
    key: str = ""
    features: Float32[np.ndarray, "k ..."] | None = None  # what the cache keeps
    embeddings: Float32[np.ndarray, "k d"] | None = None
    views: list[UInt8[np.ndarray, "t h w c"]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    decoder: str = ""
    cause: str = ""
    fresh: bool = False  # whether its features were made here
    seconds: dict[str, float] = field(default_factory=dict)


def encode_samples(
    samples: EvalSamples, clip_encoder: ClipEncoder, options: EvalOptions, seconds: dict[str, float]
) -> list[SampleEmbedding]:
    """Encode each sample, in order; what a resumed journal holds is not encoded again.

    Args:
        samples: All of them.
        clip_encoder: What encodes.
        options: How it is carried out.
        seconds: Is added to, by what the time was spent on.
    """
    at_once = options.frames_at_once or clip_encoder.frames_at_once
    unit = _unit_size(clip_encoder, at_once)
    journal = None
    done: list[list[SampleEmbedding]] = []
    if options.journal is not None:
        names = [f"{item.name} {item.start_seconds} {item.end_seconds}" for item in samples.items]
        journal = Journal(options.journal, content_key("run 1", clip_encoder.identity, str(unit), *names))
        if options.resume:
            done = journal.resume()
        else:
            journal.start()
    found = _encode_all(
        samples.items,
        clip_encoder,
        cache=options.cache,
        journal=journal,
        done=done,
        workers=options.workers or max(2, _cores()),
        unit=unit,
        seconds=seconds,
    )
    return list(options.progress(found, len(samples), "evaluating"))


def add_seconds(seconds: dict[str, float], activity: str, start: float) -> None:
    """Add the time since `start` (time.perf_counter) to what it was spent on."""
    seconds[activity] = seconds.get(activity, 0.0) + time.perf_counter() - start


def _encode_all(
    items: Sequence[EvalSample],
    clip_encoder: ClipEncoder,
    *,
    cache: Cache | None,
    journal: Journal | None,
    done: Sequence[Sequence[SampleEmbedding]],
    workers: int,
    unit: int,
    seconds: dict[str, float],
) -> Iterator[SampleEmbedding]:
    """The embeddings of each item, in order; `done` are the units that a journal had."""
    at_once = unit * clip_encoder.views_a_sample
    written = {one.kept for embeddings in done for one in embeddings if one.kept}
    for embeddings in done:
        yield from embeddings
    rest = items[sum(map(len, done)) :]
    read = partial(
        _read_file,
        clip_encoder=clip_encoder,
        cache=cache,
        key="" if cache is None else clip_encoder.key(),
        written=written,
    )
    units = (_on_cores if clip_encoder.on_cpu else _on_gpu)(
        rest, read, clip_encoder, unit=unit, at_once=at_once, workers=workers
    )
    warned = False
    while True:
        start = time.perf_counter()
        files = next(units, [])
        add_seconds(seconds, "wait", start)
        if not files:
            return
        for file in files:
            for activity, spent in file.seconds.items():
                seconds[activity] = seconds.get(activity, 0.0) + spent
                if activity == "encode" and not clip_encoder.on_cpu:
                    seconds["wait"] -= spent
        fresh = [file for file in files if file.fresh]
        found = [_sample_embedding(file, clip_encoder, kept=cache is not None and file.fresh) for file in files]
        start = time.perf_counter()
        if journal is not None:
            journal.append(found)
        if cache is not None:
            try:
                _keep(fresh, cache, clip_encoder.kind, written)
            except CacheError as error:  # a cache that cannot be written costs time later, not the answer
                if not warned:
                    warnings.warn(str(error), stacklevel=2)
                warned = True
        add_seconds(seconds, "store", start)
        yield from found


def _on_cores(
    items: Sequence[EvalSample],
    read: Callable[[EvalSample], _File],
    clip_encoder: ClipEncoder,
    *,
    unit: int,
    at_once: int,
    workers: int,
) -> Iterator[list[_File]]:
    """Units, each decoded and encoded by one of the workers, which have the cores between them."""

    def work(start: int) -> list[_File]:
        files = [read(item) for item in items[start : start + unit]]
        _encode(files, clip_encoder, at_once=at_once)
        return files

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // workers))
    try:
        yield from work_ahead(work, range(0, len(items), unit), depth=2 * workers, workers=workers)
    finally:
        torch.set_num_threads(threads)


def _on_gpu(
    items: Sequence[EvalSample],
    read: Callable[[EvalSample], _File],
    clip_encoder: ClipEncoder,
    *,
    unit: int,
    at_once: int,
    workers: int,
) -> Iterator[list[_File]]:
    """Units whose files the workers have decoded ahead, encoded here."""
    held = max(2 * unit, min(64, _FRAMES_HELD // (clip_encoder.views_a_sample * clip_encoder.spec.frames)))
    ahead = work_ahead(read, items, depth=held, workers=workers)
    while files := list(islice(ahead, unit)):
        _encode(files, clip_encoder, at_once=at_once)
        yield files


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _unit_size(clip_encoder: ClipEncoder, frames_at_once: int) -> int:
    """How many files are encoded together, at least one."""
    return max(1, frames_at_once // (clip_encoder.views_a_sample * clip_encoder.spec.frames))


def _read_file(
    item: EvalSample, *, clip_encoder: ClipEncoder, cache: Cache | None, key: str, written: set[str]
) -> _File:
    """Runs in a thread: the cache is asked first, then the file is decoded."""
    start = time.perf_counter()
    file = _File(digest=file_digest(item.path))
    span = (item.start_seconds, item.end_seconds)
    if cache is not None and file.digest:
        file.key = cache_key(clip_encoder, key, file.digest, span, DECODERS)
        _recall(file, cache, clip_encoder, written)
    file.seconds["lookup"] = time.perf_counter() - start
    if file.features is not None:
        return file
    start = time.perf_counter()
    try:
        clips = load_clips(
            item.path,
            clip_encoder.spec,
            clips=clip_encoder.views,
            crops=clip_encoder.crops,
            start_seconds=span[0],
            end_seconds=span[1],
            decoder=clip_encoder.decoder,
        )
    except VideoError as error:
        file.cause = error.cause
    else:
        file.views = [clip.frames for clip in clips]
        file.decoder = clips[0].decoder
        file.notes = tuple(dict.fromkeys(note for clip in clips for note in clip.notes))
    file.seconds["decode"] = time.perf_counter() - start
    return file


def _recall(file: _File, cache: Cache, clip_encoder: ClipEncoder, written: set[str]) -> None:
    """Features from the cache, but for what this run has put there."""
    entry = cache.read(clip_encoder.kind, file.key)
    # `written` is asked after reading: whoever writes an entry names it there before.
    if entry is None or file.key in written or len(entry["values"]) != clip_encoder.views_a_sample:
        return
    facts = json.loads(entry["facts"].tobytes())
    file.decoder, file.notes, file.features = facts["decoder"], tuple(facts["notes"]), entry["values"]


def _encode(files: Sequence[_File], clip_encoder: ClipEncoder, *, at_once: int) -> None:
    """Give features to each that lacks them, and embeddings to all; views of several files share a batch."""
    start = time.perf_counter()
    fresh = [file for file in files if file.views]
    views = [frames for file in fresh for frames in file.views]
    if views:
        features = np.concatenate(
            [clip_encoder.encode_views(views[i : i + at_once]) for i in range(0, len(views), at_once)]
        )
        for file in fresh:
            file.features, features = features[: len(file.views)], features[len(file.views) :]
            file.fresh, file.views = True, []
    for file in files:
        if file.features is not None:
            file.embeddings = clip_encoder.apply_head(file.features)
    if files:
        add_seconds(files[0].seconds, "encode", start)


def _sample_embedding(file: _File, clip_encoder: ClipEncoder, *, kept: bool) -> SampleEmbedding:
    return SampleEmbedding(
        vector=None if file.embeddings is None else clip_encoder.pool_views(file.embeddings),
        digest="" if file.cause else file.digest,
        cause=file.cause,
        notes=file.notes,
        decoder=file.decoder,
        kept=file.key if kept else "",
    )


def _keep(fresh: Sequence[_File], cache: Cache, kind: str, written: set[str]) -> None:
    for file in fresh:
        if file.features is not None and file.key:
            written.add(file.key)
            facts = json.dumps({"decoder": file.decoder, "notes": file.notes}, ensure_ascii=False).encode()
            cache.write(kind, file.key, {"facts": np.frombuffer(facts, np.uint8), "values": file.features})
