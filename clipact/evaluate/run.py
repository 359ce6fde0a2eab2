"""The runner: a recogniser and samples in, Scores out; a model and captioned files in, RetrievalScores out."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from einops import rearrange

from clipact.classify.base import Recognizer
from clipact.classify.from_index import IndexClassifier
from clipact.classify.probe import ProbeClassifier
from clipact.classify.supervised import SupervisedClassifier
from clipact.classify.zero_shot import ZeroShotClassifier, template_weights
from clipact.clip_spec import ClipSpec
from clipact.data.fingerprint import file_digest
from clipact.data.protocol import Averaging
from clipact.errors import UsageError, VideoError, choices
from clipact.evaluate.encode import spend
from clipact.evaluate.encoded_samples import EncodedSamples, describe_views, describe_words
from clipact.evaluate.encoder_adapter import clip_vectors, label_logits, make_clip_encoder
from clipact.evaluate.journal import SampleEmbedding
from clipact.evaluate.options import EvalOptions, as_samples, encode_samples, files_seen
from clipact.evaluate.provenance import describe_run
from clipact.evaluate.results import ClassificationResult, RetrievalResult
from clipact.evaluate.samples import EvalSample, EvalSamples
from clipact.models.dual_encoder import unit
from clipact.models.zoo import Model

_TINY = float(np.finfo(np.float32).tiny)


def evaluate(
    recognizer: Recognizer,
    samples: EvalSamples | Sequence[EvalSample],
    *,
    averaging: Averaging = "embeddings",
    crops: int = 1,
    options: EvalOptions | None = None,
) -> ClassificationResult:
    """The logits of every sample for every label of the recogniser, and all that would repeat them.

    `averaging` is over the views of a file, as `label_logits` says; `crops` are 1 or 3 a view.
    A probe averages embeddings and nothing else. A recogniser that is neither it nor a ZeroShotClassifier or a
    SupervisedClassifier is asked file by file, in its own way: UsageError when averaging, crops or what `EvalOptions` says of
    store, journal and batches is not left as it is. The logarithms of its scores are the logits; what it does not rank
    has the least. A model whose texts depend on the video, as X-CLIP's do, is refused (ModelError): it has no
    embeddings that labels can be compared with afterwards.
    Templates that await their weights get them from these samples, without their labels.
    DataError when not one file can be read. An unreadable file is named in the result and has no row.
    """
    if isinstance(recognizer, SupervisedClassifier):
        recognizer = recognizer.base
    if isinstance(recognizer, ZeroShotClassifier):
        return next(evaluate_wordings([recognizer], samples, averaging=averaging, crops=crops, options=options))
    if isinstance(recognizer, ProbeClassifier):
        if averaging != "embeddings":
            raise UsageError(f"averaging is {averaging!r}; a probe was fitted to embeddings and averages these")
        return _evaluate_probe(recognizer, as_samples(samples), crops=crops, options=options or EvalOptions())
    samples, options, clock = as_samples(samples), options or EvalOptions(), dict[str, float]()
    if (averaging, crops, replace(options, watch=EvalOptions().watch, run={})) != ("embeddings", 1, EvalOptions()):
        raise UsageError(
            f"{type(recognizer).__name__} looks at files in its own way: averaging, crops, store, journal, resume, "
            "workers and frames_at_once are for ZeroShotClassifier"
        )
    model = recognizer.model if isinstance(recognizer, IndexClassifier) else None
    truth = _truth(samples.items, recognizer.labels)
    begun = time.perf_counter()
    outcome = EncodedSamples.of(samples, list(options.watch(_ask(recognizer, samples.items), len(samples))))
    spend(clock, "total", begun)
    seen = frozenset[str]() if model is None else files_seen(model)
    facts = describe_run(model, dict(samples.data) or {"set": ""}, digests=outcome.digests, seen=seen) | {"views": {}}
    facts["model"] = facts["model"] or {"name": type(recognizer).__name__}
    run = outcome.describe(facts, options.run)
    return outcome.label_scores(recognizer.labels, truth, outcome.vectors, run=run, seconds=clock)


def _evaluate_probe(
    probe: ProbeClassifier, samples: EvalSamples, *, crops: int, options: EvalOptions
) -> ClassificationResult:
    clock, begun = dict[str, float](), time.perf_counter()
    truth = _truth(samples.items, probe.labels)
    judged = make_clip_encoder(probe.model, probe.spec, views=probe.clips, crops=crops)
    outcome = EncodedSamples.of(samples, encode_samples(samples, judged, options, clock))
    seen = files_seen(probe.model) | probe.files_seen
    facts = describe_run(
        probe.model, dict(samples.data) or {"set": ""}, digests=outcome.digests, seen=seen, taught=probe.taught
    ) | {"views": describe_views(judged, "embeddings")}
    logits = probe.probe.logits(outcome.vectors)
    spend(clock, "total", begun)
    return outcome.label_scores(probe.labels, truth, logits, run=outcome.describe(facts, options.run), seconds=clock)


def evaluate_wordings(
    classifiers: Sequence[ZeroShotClassifier],
    samples: EvalSamples | Sequence[EvalSample],
    *,
    averaging: Averaging = "embeddings",
    crops: int = 1,
    options: EvalOptions | None = None,
) -> Iterator[ClassificationResult]:
    """What `evaluate` gives for each classifier, in order, from one encoding of the samples.

    The classifiers differ in their words alone: UsageError when model, frames, clips or labels differ.
    """
    first, samples, options, clock = classifiers[0], as_samples(samples), options or EvalOptions(), dict[str, float]()
    for other in classifiers:
        if (other.model.key, other.spec, other.clips, other.decoder, other.labels) != (
            first.model.key, first.spec, first.clips, first.decoder, first.labels
        ):  # fmt: skip
            raise UsageError("wordings are compared on one encoding: the same model, frames, clips and labels")
    truth = _truth(samples.items, first.labels)
    seen = files_seen(first.model)
    begun = time.perf_counter()
    judged = make_clip_encoder(
        first.model, first.spec, views=first.clips, crops=crops, averaging=averaging, decoder=first.decoder
    )
    outcome = EncodedSamples.of(samples, encode_samples(samples, judged, options, clock))
    facts = describe_run(first.model, dict(samples.data) or {"set": ""}, digests=outcome.digests, seen=seen) | {
        "views": describe_views(judged, averaging)
    }
    run = outcome.describe(facts, options.run)
    for classifier in classifiers:
        started = time.perf_counter()
        if classifier.words.needs_template_weights:
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
    samples: EvalSamples,
    *,
    spec: ClipSpec | None = None,
    views: int = 1,
    crops: int = 1,
    options: EvalOptions | None = None,
) -> RetrievalResult:
    """The unit vectors of every file and of every caption of a readable one; options as for `evaluate`.

    Captions are sentences already: no template is used.
    """
    options, clock, seen = options or EvalOptions(), dict[str, float](), files_seen(model)
    begun = time.perf_counter()
    judged = make_clip_encoder(model, spec or model.encoder.spec, views=views, crops=crops)
    outcome = EncodedSamples.of(samples, encode_samples(samples, judged, options, clock))
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
    return RetrievalResult(
        samples=outcome.names,
        texts=tuple(sentence for sentence, _ in said),
        text_of=np.array([row for _, row in said], dtype=np.int64),
        visual=outcome.vectors,
        text=text,
        groups=outcome.groups,
        unreadable=outcome.unreadable,
        run=outcome.describe(facts, options.run),
        seconds=clock,
    )


def _ask(recognizer: Recognizer, items: Sequence[EvalSample]) -> Iterable[SampleEmbedding]:
    for item in items:
        if item.start_seconds is not None or item.end_seconds is not None:
            raise UsageError(f"{item.name} is a part of a file; {type(recognizer).__name__} takes whole files")
    place = {label: i for i, label in enumerate(recognizer.labels)}
    answers = recognizer.classify_many([item.path for item in items])
    for item, answer in zip(items, answers, strict=True):
        if isinstance(answer, VideoError):
            yield SampleEmbedding(vector=None, cause=answer.cause)
            continue
        vector = np.full(len(place), math.log(_TINY))
        for entry in answer.ranked:
            vector[place[entry.label]] = math.log(max(entry.score, _TINY))
        yield SampleEmbedding(
            vector=vector.astype(np.float32),
            digest=file_digest(item.path),
            notes=answer.notes,
            decoder=answer.decoder or "",
        )


def _truth(items: Sequence[EvalSample], labels: Sequence[str]) -> np.ndarray:
    place = {label: i for i, label in enumerate(labels)}
    for item in items:
        if item.label not in place:
            raise UsageError(f"{item.name} has the label {item.label!r}; {choices(str(item.label), labels)}")
    return np.array([place[item.label] for item in items if item.label is not None], dtype=np.int64)
