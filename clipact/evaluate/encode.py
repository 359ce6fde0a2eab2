"""Files to findings: decoded ahead in threads, encoded in batches across files, kept in the store and the journal.

A unit is as many files as fill one batch. On a CPU a worker decodes and encodes a unit by itself, with its share of
the cores: convolutions of a few pictures wait for each other on two cores, two workers never do. For a GPU workers
decode file by file, and whoever asks for the findings encodes.

Units are the same whatever is resumed, and a file that this run has put into the store is encoded again when it comes
a second time: so the bits do not hang on when a run was killed, or on which thread was first.
"""

import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import av
import numpy as np
import PIL
import torch
from jaxtyping import Float32, UInt8

from clipact.cache import Cache
from clipact.data.fingerprint import file_digest
from clipact.errors import CacheError, VideoError
from clipact.evaluate.encoder_adapter import ClipEncoder, store_key
from clipact.evaluate.journal import Journal, SampleEmbedding
from clipact.evaluate.samples import EvalSample
from clipact.video.load import load_clips, work_ahead

DECODERS = f"pyav {av.__version__}, pillow {PIL.__version__}"
_FRAMES_HELD = 1024  # decoded and waiting, about 200 MB at 260 pixels


@dataclass(kw_only=True, eq=False)
class _Taken:
    """A file looked at: its features from the store, or its views, or the cause why it has none; then its rows."""

    digest: str
    key: str = ""
    features: Float32[np.ndarray, "k ..."] | None = None  # what the store keeps
    rows: Float32[np.ndarray, "k d"] | None = None
    views: list[UInt8[np.ndarray, "t h w c"]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    decoder: str = ""
    cause: str = ""
    fresh: bool = False  # whether its features were made here
    seconds: dict[str, float] = field(default_factory=dict)


def encode_all(
    items: Sequence[EvalSample],
    judged: ClipEncoder,
    *,
    cache: Cache | None,
    journal: Journal | None,
    done: Sequence[Sequence[SampleEmbedding]] = (),
    workers: int,
    frames_at_once: int,
    seconds: dict[str, float],
) -> Iterator[SampleEmbedding]:
    """What is found of each item, in order; `done` are the units that a journal had. `seconds` is added to,
    by what the time was spent on."""
    unit = unit_size(judged, frames_at_once)
    at_once = unit * judged.views_a_sample
    mine = {one.kept for findings in done for one in findings if one.kept}
    for findings in done:
        yield from findings
    rest = items[sum(map(len, done)) :]
    take = partial(_take, judged=judged, cache=cache, key="" if cache is None else judged.key(), mine=mine)
    units = (_on_cores if judged.on_cpu else _on_gpu)(rest, take, judged, unit=unit, at_once=at_once, workers=workers)
    warned = False
    while True:
        begun = time.perf_counter()
        taken = next(units, [])
        spend(seconds, "wait", begun)
        if not taken:
            return
        for one in taken:
            for what, spent in one.seconds.items():
                seconds[what] = seconds.get(what, 0.0) + spent
                if what == "encode" and not judged.on_cpu:
                    seconds["wait"] -= spent
        fresh = [one for one in taken if one.fresh]
        findings = [_finding(one, judged, kept=cache is not None and one.fresh) for one in taken]
        begun = time.perf_counter()
        if journal is not None:
            journal.append(findings)
        if cache is not None:
            try:
                _keep(fresh, cache, judged.kind, mine)
            except CacheError as error:  # a store that cannot be written costs time later, not the answer
                if not warned:
                    warnings.warn(str(error), stacklevel=2)
                warned = True
        spend(seconds, "store", begun)
        yield from findings


def _on_cores(
    items: Sequence[EvalSample],
    take: Callable[[EvalSample], _Taken],
    judged: ClipEncoder,
    *,
    unit: int,
    at_once: int,
    workers: int,
) -> Iterator[list[_Taken]]:
    """Units, each decoded and encoded by one of the workers, which have the cores between them."""

    def work(start: int) -> list[_Taken]:
        taken = [take(item) for item in items[start : start + unit]]
        _encode(taken, judged, at_once=at_once)
        return taken

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // workers))
    try:
        yield from work_ahead(work, range(0, len(items), unit), depth=2 * workers, workers=workers)
    finally:
        torch.set_num_threads(threads)


def _on_gpu(
    items: Sequence[EvalSample],
    take: Callable[[EvalSample], _Taken],
    judged: ClipEncoder,
    *,
    unit: int,
    at_once: int,
    workers: int,
) -> Iterator[list[_Taken]]:
    """Units whose files the workers have decoded ahead, encoded here."""
    held = max(2 * unit, min(64, _FRAMES_HELD // (judged.views_a_sample * judged.spec.frames)))
    ahead = work_ahead(take, items, depth=held, workers=workers)
    while taken := list(islice(ahead, unit)):
        _encode(taken, judged, at_once=at_once)
        yield taken


def spend(seconds: dict[str, float], what: str, begun: float) -> None:
    """Add the time since `begun` (time.perf_counter) to what it was spent on."""
    seconds[what] = seconds.get(what, 0.0) + time.perf_counter() - begun


def unit_size(judged: ClipEncoder, frames_at_once: int) -> int:
    """How many files are encoded together, at least one."""
    return max(1, frames_at_once // (judged.views_a_sample * judged.spec.frames))


def _take(item: EvalSample, *, judged: ClipEncoder, cache: Cache | None, key: str, mine: set[str]) -> _Taken:
    """Runs in a thread: the store is asked first, then the file is decoded."""
    begun = time.perf_counter()
    taken = _Taken(digest=file_digest(item.path))
    span = (item.start_seconds, item.end_seconds)
    if cache is not None and taken.digest:
        taken.key = store_key(judged, key, taken.digest, span, DECODERS)
        _recall(taken, cache, judged, mine)
    taken.seconds["lookup"] = time.perf_counter() - begun
    if taken.features is not None:
        return taken
    begun = time.perf_counter()
    try:
        clips = load_clips(
            item.path,
            judged.spec,
            clips=judged.views,
            crops=judged.crops,
            start_seconds=span[0],
            end_seconds=span[1],
            decoder=judged.decoder,
        )
    except VideoError as error:
        taken.cause = error.cause
    else:
        taken.views = [clip.frames for clip in clips]
        taken.decoder = clips[0].decoder
        taken.notes = tuple(dict.fromkeys(note for clip in clips for note in clip.notes))
    taken.seconds["decode"] = time.perf_counter() - begun
    return taken


def _recall(taken: _Taken, cache: Cache, judged: ClipEncoder, mine: set[str]) -> None:
    """Features from the store, but for what this run has put there."""
    entry = cache.read(judged.kind, taken.key)
    # `mine` is asked after reading: whoever writes an entry names it there before.
    if entry is None or taken.key in mine or len(entry["values"]) != judged.views_a_sample:
        return
    facts = json.loads(entry["facts"].tobytes())
    taken.decoder, taken.notes, taken.features = facts["decoder"], tuple(facts["notes"]), entry["values"]


def _encode(taken: Sequence[_Taken], judged: ClipEncoder, *, at_once: int) -> None:
    """Give features to each that lacks them, and rows to all; views of several files share a batch."""
    begun = time.perf_counter()
    fresh = [one for one in taken if one.views]
    views = [frames for one in fresh for frames in one.views]
    if views:
        features = np.concatenate([judged.see(views[i : i + at_once]) for i in range(0, len(views), at_once)])
        for one in fresh:
            one.features, features = features[: len(one.views)], features[len(one.views) :]
            one.fresh, one.views = True, []
    for one in taken:
        if one.features is not None:
            one.rows = judged.finish(one.features)
    if taken:
        spend(taken[0].seconds, "encode", begun)


def _finding(taken: _Taken, judged: ClipEncoder, *, kept: bool) -> SampleEmbedding:
    return SampleEmbedding(
        vector=None if taken.rows is None else judged.gather(taken.rows),
        digest="" if taken.cause else taken.digest,
        cause=taken.cause,
        notes=taken.notes,
        decoder=taken.decoder,
        kept=taken.key if kept else "",
    )


def _keep(fresh: Sequence[_Taken], cache: Cache, kind: str, mine: set[str]) -> None:
    for one in fresh:
        if one.features is not None and one.key:
            mine.add(one.key)
            facts = json.dumps({"decoder": one.decoder, "notes": one.notes}, ensure_ascii=False).encode()
            cache.write(kind, one.key, {"facts": np.frombuffer(facts, np.uint8), "values": one.features})
