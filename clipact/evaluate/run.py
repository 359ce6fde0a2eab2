"""The runner: a recogniser and samples in, Scores out; a model and captioned files in, RetrievalScores out."""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from clipact.classifier import ZeroShotClassifier
from clipact.clip_spec import ClipSpec
from clipact.dual_encoder import unit
from clipact.errors import UsageError, VideoError, choices
from clipact.evaluate.findings import find_all, spend, unit_size
from clipact.evaluate.journal import Finding, Journal
from clipact.evaluate.judged import Judged, clip_vectors, judge, label_logits
from clipact.evaluate.outcome import Outcome, describe_views, describe_words
from clipact.evaluate.provenance import describe_run
from clipact.evaluate.samples import Item, Samples, file_digest
from clipact.index_classifier import IndexClassifier
from clipact.model_config import read_files_seen
from clipact.protocol import Averaging
from clipact.recognizer import Recognizer
from clipact.scores import RetrievalScores, Scores
from clipact.store import Store, content_key
from clipact.supervised import SupervisedClassifier
from clipact.template_weights import template_weights
from clipact.zoo import Model

_TINY = float(np.finfo(np.float32).tiny)
Watch = Callable[[Iterable[Finding], int], Iterable[Finding]]


def _watch(findings: Iterable[Finding], _: int) -> Iterable[Finding]:
    return findings


@dataclass(frozen=True, kw_only=True)
class How:
    """How an evaluation is carried out: nothing here changes what it finds by more than rounding.

    workers         threads that decode ahead, and on a CPU encode; by default one a core, two at least
    frames_at_once  encoded together, over files; by default 8 on a CPU, 256 elsewhere
    store           where embeddings are looked for and kept; None: nowhere
    journal         a file that makes the run safe from being killed
    resume          whether a journal that is there is taken up, or begun anew
    watch           is handed the findings as they come, and their number
    run             more to say in the result: command, card, metric
    """

    workers: int | None = None
    frames_at_once: int | None = None
    store: Store | None = None
    journal: Path | None = None
    resume: bool = False
    watch: Watch = _watch
    run: Mapping[str, Any] = field(default_factory=dict)


def evaluate(
    recognizer: Recognizer,
    samples: Samples | Sequence[Item],
    *,
    averaging: Averaging = "embeddings",
    crops: int = 1,
    how: How | None = None,
) -> Scores:
    """The logits of every sample for every label of the recogniser, and all that would repeat them.

    `averaging` is over the views of a file, as `label_logits` says; `crops` are 1 or 3 a view.
    A recogniser other than ZeroShotClassifier and SupervisedClassifier is asked file by file, in its own way:
    UsageError when averaging, crops or what `How` says of store, journal and batches is not left as it is. The
    logarithms of its scores are the logits; what it does not rank has the least. A model whose texts depend on the
    video, as X-CLIP's do, is refused (ModelError): it has no embeddings that labels can be compared with afterwards.
    Templates that await their weights get them from these samples, without their labels.
    DataError when not one file can be read. An unreadable file is named in the result and has no row.
    """
    if isinstance(recognizer, SupervisedClassifier):
        recognizer = recognizer.nearest
    if isinstance(recognizer, ZeroShotClassifier):
        return next(evaluate_wordings([recognizer], samples, averaging=averaging, crops=crops, how=how))
    samples, how, clock = _samples(samples), how or How(), dict[str, float]()
    if (averaging, crops, replace(how, watch=_watch, run={})) != ("embeddings", 1, How()):
        raise UsageError(
            f"{type(recognizer).__name__} looks at files in its own way: averaging, crops, store, journal, resume, "
            "workers and frames_at_once are for ZeroShotClassifier"
        )
    model = recognizer.model if isinstance(recognizer, IndexClassifier) else None
    truth = _truth(samples.items, recognizer.labels)
    begun = time.perf_counter()
    outcome = Outcome.of(samples, list(how.watch(_ask(recognizer, samples.items), len(samples))))
    spend(clock, "total", begun)
    seen = frozenset[str]() if model is None else _files_seen(model)
    facts = describe_run(model, dict(samples.data) or {"set": ""}, digests=outcome.digests, seen=seen) | {"views": {}}
    facts["model"] = facts["model"] or {"name": type(recognizer).__name__}
    run = outcome.describe(facts, how.run)
    return outcome.label_scores(recognizer.labels, truth, outcome.vectors, run=run, seconds=clock)


def evaluate_wordings(
    classifiers: Sequence[ZeroShotClassifier],
    samples: Samples | Sequence[Item],
    *,
    averaging: Averaging = "embeddings",
    crops: int = 1,
    how: How | None = None,
) -> Iterator[Scores]:
    """What `evaluate` gives for each classifier, in order, from one encoding of the samples.

    The classifiers differ in their words alone: UsageError when model, frames, clips or labels differ.
    """
    first, samples, how, clock = classifiers[0], _samples(samples), how or How(), dict[str, float]()
    for other in classifiers:
        if (other.model.key, other.spec, other.clips, other.decoder, other.labels) != (
            first.model.key, first.spec, first.clips, first.decoder, first.labels
        ):  # fmt: skip
            raise UsageError("wordings are compared on one encoding: the same model, frames, clips and labels")
    truth = _truth(samples.items, first.labels)
    seen = _files_seen(first.model)
    begun = time.perf_counter()
    judged = judge(first.model, first.spec, views=first.clips, crops=crops, averaging=averaging, decoder=first.decoder)
    outcome = Outcome.of(samples, _find(samples, judged, how, clock))
    facts = describe_run(first.model, dict(samples.data) or {"set": ""}, digests=outcome.digests, seen=seen) | {
        "views": describe_views(judged, averaging)
    }
    run = outcome.describe(facts, how.run)
    for classifier in classifiers:
        started = time.perf_counter()
        if classifier.words.weigh:
            clips, views = clip_vectors(classifier, outcome.vectors)
            whole = unit(rearrange(clips, "(b k) d -> b k d", k=views).mean(1))
            classifier = classifier.with_weights(template_weights(first.model.encoder, classifier.words, whole))
        scores = label_logits(classifier, outcome.vectors, averaging=averaging)
        spend(clock, "words", started)
        spend(clock, "total", begun)
        said = run | {"prompts": describe_words(classifier)}
        yield outcome.label_scores(first.labels, truth, scores, run=said, seconds=clock)
        clock, begun = dict[str, float](), time.perf_counter()


def evaluate_retrieval(
    model: Model,
    samples: Samples,
    *,
    spec: ClipSpec | None = None,
    views: int = 1,
    crops: int = 1,
    how: How | None = None,
) -> RetrievalScores:
    """The unit vectors of every file and of every caption of a readable one; options as for `evaluate`.

    Captions are sentences already: no template is used.
    """
    how, clock, seen = how or How(), dict[str, float](), _files_seen(model)
    begun = time.perf_counter()
    judged = judge(model, spec or model.encoder.spec, views=views, crops=crops)
    outcome = Outcome.of(samples, _find(samples, judged, how, clock))
    said = [(text, row) for row, i in enumerate(outcome.rows) for text in samples.items[i].texts]
    if not said:
        raise UsageError("these samples have no captions: nothing can be retrieved")
    started = time.perf_counter()
    with torch.inference_mode():
        text = model.encoder.encode_text([sentence for sentence, _ in said]).float().cpu().numpy()
    spend(clock, "text", started)
    spend(clock, "total", begun)
    facts = describe_run(model, dict(samples.data) or {"set": ""}, digests=outcome.digests, seen=seen) | {
        "views": describe_views(judged, "embeddings")
    }
    return RetrievalScores(
        samples=outcome.names,
        texts=tuple(sentence for sentence, _ in said),
        text_of=np.array([row for _, row in said], dtype=np.int64),
        visual=outcome.vectors,
        text=text,
        groups=outcome.groups,
        unreadable=outcome.unreadable,
        run=outcome.describe(facts, how.run),
        seconds=clock,
    )


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _files_seen(model: Model) -> frozenset[str]:
    return frozenset() if model.folder is None else frozenset(read_files_seen(model.folder))


def _samples(samples: Samples | Sequence[Item]) -> Samples:
    return samples if isinstance(samples, Samples) else Samples(items=tuple(samples), labels=None)


def _find(samples: Samples, judged: Judged, how: How, clock: dict[str, float]) -> list[Finding]:
    """What was found of each sample, in order; what a resumed journal holds is not looked for again."""
    at_once = how.frames_at_once or judged.frames_at_once
    journal = None
    done: list[list[Finding]] = []
    if how.journal is not None:
        names = [f"{item.name} {item.start_seconds} {item.end_seconds}" for item in samples.items]
        journal = Journal(how.journal, content_key("run 1", judged.identity, str(unit_size(judged, at_once)), *names))
        if how.resume:
            done = journal.resume()
        else:
            journal.start()
    found = find_all(
        samples.items,
        judged,
        store=how.store,
        journal=journal,
        done=done,
        workers=how.workers or max(2, _cores()),
        frames_at_once=at_once,
        seconds=clock,
    )
    return list(how.watch(found, len(samples)))


def _ask(recognizer: Recognizer, items: Sequence[Item]) -> Iterable[Finding]:
    for item in items:
        if item.start_seconds is not None or item.end_seconds is not None:
            raise UsageError(f"{item.name} is a part of a file; {type(recognizer).__name__} takes whole files")
    place = {label: i for i, label in enumerate(recognizer.labels)}
    answers = recognizer.classify_many([item.path for item in items])
    for item, answer in zip(items, answers, strict=True):
        if isinstance(answer, VideoError):
            yield Finding(vector=None, cause=answer.cause)
            continue
        vector = np.full(len(place), math.log(_TINY))
        for entry in answer.ranked:
            vector[place[entry.label]] = math.log(max(entry.score, _TINY))
        yield Finding(
            vector=vector.astype(np.float32),
            digest=file_digest(item.path),
            notes=answer.notes,
            decoder=answer.decoder or "",
        )


def _truth(items: Sequence[Item], labels: Sequence[str]) -> np.ndarray:
    place = {label: i for i, label in enumerate(labels)}
    for item in items:
        if item.label not in place:
            raise UsageError(f"{item.name} has the label {item.label!r}; {choices(str(item.label), labels)}")
    return np.array([place[item.label] for item in items if item.label is not None], dtype=np.int64)
