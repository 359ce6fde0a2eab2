"""The runner: a recogniser and samples in, Scores out; a model and captioned files in, RetrievalScores out."""

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipact.classifier import ZeroShotClassifier
from clipact.clip_spec import ClipSpec
from clipact.errors import DataError, UsageError, VideoError, choices
from clipact.evaluate.findings import DECODERS, find_all, spend, unit_size
from clipact.evaluate.journal import Finding, Journal
from clipact.evaluate.judged import Judged, judge_labels, judge_retrieval
from clipact.evaluate.provenance import describe_run
from clipact.evaluate.samples import Item, Samples, files_digest
from clipact.protocol import Averaging
from clipact.recognizer import Recognizer
from clipact.scores import RetrievalScores, Scores
from clipact.store import Store, content_key
from clipact.zoo import Model

_TINY = float(np.finfo(np.float32).tiny)
Watch = Callable[[Iterable[Finding], int], Iterable[Finding]]


@dataclass(frozen=True, kw_only=True)
class How:
    """How an evaluation is carried out: nothing here changes what it finds by more than rounding.

    workers         threads that decode ahead; by default one a core, two at least
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
    watch: Watch = lambda findings, _: findings
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

    `averaging` is over the views of a file, as `judge_labels` says; `crops` are 1 or 3 a view.
    A recogniser other than ZeroShotClassifier is asked file by file; the logarithms of its scores are the logits.
    DataError when not one file can be read. An unreadable file is named in the result and has no row.
    """
    samples = samples if isinstance(samples, Samples) else Samples(items=tuple(samples), labels=None)
    truth = _truth(samples.items, recognizer.labels)
    how, clock = how or How(), dict[str, float]()
    begun = time.perf_counter()
    if isinstance(recognizer, ZeroShotClassifier):
        judged = judge_labels(recognizer, averaging=averaging, crops=crops)
        findings = _find(samples, judged, how, clock)
        facts = describe_run(recognizer.model, dict(samples.data) or {"set": ""}) | {
            "prompts": {
                "name": recognizer.prompts.name,
                "templates": [template.text for template in recognizer.prompts.templates],
                "phrases": list(recognizer.label_set.phrases),
            },
            "views": _views(judged, averaging),
        }
    else:
        findings = list(how.watch(_ask(recognizer, samples.items), len(samples)))
        facts = describe_run(None, dict(samples.data) or {"set": ""}) | {
            "model": {"name": type(recognizer).__name__}, "views": {}
        }  # fmt: skip
    rows, vectors = _readable(samples.items, findings)
    spend(clock, "total", begun)
    return Scores(
        samples=tuple(samples.items[i].name for i in rows),
        labels=recognizer.labels,
        truth=truth[rows],
        scores=vectors,
        groups=_groups(samples.items, rows),
        parts=_parts(samples, rows),
        unreadable=_unreadable(samples.items, findings),
        run=_said(facts, samples, findings, how.run),
        seconds=clock,
    )


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
    how, clock = how or How(), dict[str, float]()
    begun = time.perf_counter()
    judged = judge_retrieval(model, spec or model.encoder.spec, views=views, crops=crops)
    findings = _find(samples, judged, how, clock)
    rows, vectors = _readable(samples.items, findings)
    said = [(text, row) for row, i in enumerate(rows) for text in samples.items[i].texts]
    if not said:
        raise UsageError("these samples have no captions: nothing can be retrieved")
    started = time.perf_counter()
    with torch.inference_mode():
        text = model.encoder.encode_text([sentence for sentence, _ in said]).float().cpu().numpy()
    spend(clock, "text", started)
    spend(clock, "total", begun)
    facts = describe_run(model, dict(samples.data) or {"set": ""})
    return RetrievalScores(
        samples=tuple(samples.items[i].name for i in rows),
        texts=tuple(sentence for sentence, _ in said),
        text_of=np.array([row for _, row in said], dtype=np.int64),
        visual=vectors,
        text=text,
        groups=_groups(samples.items, rows),
        unreadable=_unreadable(samples.items, findings),
        run=_said(facts | {"views": _views(judged, "embeddings")}, samples, findings, how.run),
        seconds=clock,
    )


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
        workers=how.workers or max(2, os.cpu_count() or 1),
        frames_at_once=at_once,
        seconds=clock,
    )
    return list(how.watch(found, len(samples)))


def _ask(recognizer: Recognizer, items: Sequence[Item]) -> Iterable[Finding]:
    for item in items:
        if item.start_seconds is not None or item.end_seconds is not None:
            raise UsageError(f"{item.name} is a part of a file; {type(recognizer).__name__} takes whole files")
    place = {label: i for i, label in enumerate(recognizer.labels)}
    for answer in recognizer.classify_many([item.path for item in items]):
        if isinstance(answer, VideoError):
            yield Finding(vector=None, cause=answer.cause)
            continue
        vector = np.full(len(place), math.log(_TINY))
        for entry in answer.ranked:
            vector[place[entry.label]] = math.log(max(entry.score, _TINY))
        yield Finding(vector=vector.astype(np.float32), notes=answer.notes, decoder=answer.decoder or "")


def _truth(items: Sequence[Item], labels: Sequence[str]) -> np.ndarray:
    place = {label: i for i, label in enumerate(labels)}
    for item in items:
        if item.label not in place:
            raise UsageError(f"{item.name} has the label {item.label!r}; {choices(str(item.label), labels)}")
    return np.array([place[item.label] for item in items if item.label is not None], dtype=np.int64)


def _readable(items: Sequence[Item], findings: Sequence[Finding]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.array([i for i, one in enumerate(findings) if one.vector is not None], dtype=np.int64)
    if len(rows) == 0:
        cause = f"the first, {items[0].path}: {findings[0].cause}" if findings else "there is no sample"
        raise DataError(f"not one of {len(items):,} files could be read; {cause}")
    return rows, np.stack([one.vector for one in findings if one.vector is not None])


def _unreadable(items: Sequence[Item], findings: Sequence[Finding]) -> tuple[tuple[str, str], ...]:
    return tuple((item.name, one.cause) for item, one in zip(items, findings, strict=True) if one.vector is None)


def _groups(items: Sequence[Item], rows: np.ndarray) -> tuple[str, ...] | None:
    groups = tuple(items[i].group for i in rows)
    return groups if any(groups) else None


def _parts(samples: Samples, rows: np.ndarray) -> dict[str, np.ndarray]:
    place = {int(i): row for row, i in enumerate(rows)}
    return {
        name: np.array([place[int(i)] for i in own if int(i) in place], dtype=np.int64)
        for name, own in samples.parts.items()
    }


def _views(judged: Judged, averaging: Averaging) -> dict[str, Any]:
    return asdict(judged.spec) | {"views": judged.views, "crops": judged.crops, "averaging": averaging}


def _said(
    facts: dict[str, Any], samples: Samples, findings: Sequence[Finding], run: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole `run`, with what was found on the way: decoders, notes, what is partial."""
    names = [item.name for item in samples.items]
    digests = dict(zip(names, (one.digest for one in findings), strict=True))
    lost = sum(one.vector is None for one in findings)
    why = [*samples.partial_why, *run.get("partial_why", ())]
    if lost:
        why.append(f"{lost:,} of {len(names):,} files could not be read: figures are of the others")
    decoders = Counter(one.decoder for one in findings if one.decoder)
    notes = Counter(note for one in findings for note in one.notes)
    return facts | dict(run) | {
        "data": dict(samples.data) | {"files_sha256": files_digest(names, digests), "count": len(names)},
        "views": facts["views"] | {"decoder": DECODERS, "decoded_by": dict(decoders), "notes": dict(notes)},
        "partial": bool(why),
        "partial_why": why,
    }  # fmt: skip
