"""How an evaluation is carried out, and what is found of samples when it is: by any model, for whatever follows."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipact.cache import Cache, content_key
from clipact.evaluate.encode import encode_all, unit_size
from clipact.evaluate.encoder_adapter import ClipEncoder
from clipact.evaluate.journal import Journal, SampleEmbedding
from clipact.evaluate.samples import EvalSample, EvalSamples
from clipact.models.checkpoint import read_files_seen
from clipact.models.zoo import Model

Watch = Callable[[Iterable[SampleEmbedding], int], Iterable[SampleEmbedding]]


def _watch(findings: Iterable[SampleEmbedding], _: int) -> Iterable[SampleEmbedding]:
    return findings


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """How an evaluation is carried out: nothing here changes what it finds by more than rounding.

    workers         threads that decode ahead, and on a CPU encode; by default one a core, two at least
    frames_at_once  encoded together, over files; by default 8 on a CPU, 256 elsewhere
    store           where embeddings are looked for and kept; None: nowhere
    journal         a file that makes the run safe from being killed
    resume          whether a journal that is there is taken up, or begun anew
    watch           is handed the findings as they come, and their number
    run             more to say in the result: command, protocol, metric
    """

    workers: int | None = None
    frames_at_once: int | None = None
    cache: Cache | None = None
    journal: Path | None = None
    resume: bool = False
    watch: Watch = _watch
    run: Mapping[str, Any] = field(default_factory=dict)


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def files_seen(model: Model) -> frozenset[str]:
    """The sha256 of the files that a model learnt from, as far as it says."""
    return frozenset() if model.folder is None else frozenset(read_files_seen(model.folder))


def as_samples(samples: EvalSamples | Sequence[EvalSample]) -> EvalSamples:
    """A list of items as samples of no protocol."""
    return samples if isinstance(samples, EvalSamples) else EvalSamples(items=tuple(samples), labels=None)


def encode_samples(
    samples: EvalSamples, judged: ClipEncoder, options: EvalOptions, clock: dict[str, float]
) -> list[SampleEmbedding]:
    """What was found of each sample, in order; what a resumed journal holds is not looked for again."""
    at_once = options.frames_at_once or judged.frames_at_once
    journal = None
    done: list[list[SampleEmbedding]] = []
    if options.journal is not None:
        names = [f"{item.name} {item.start_seconds} {item.end_seconds}" for item in samples.items]
        journal = Journal(
            options.journal, content_key("run 1", judged.identity, str(unit_size(judged, at_once)), *names)
        )
        if options.resume:
            done = journal.resume()
        else:
            journal.start()
    found = encode_all(
        samples.items,
        judged,
        cache=options.cache,
        journal=journal,
        done=done,
        workers=options.workers or max(2, _cores()),
        frames_at_once=at_once,
        seconds=clock,
    )
    return list(options.watch(found, len(samples)))
