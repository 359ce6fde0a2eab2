"""Evaluation of a recognizer on samples, and of a model's retrieval on captioned files."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from clipact.classify.base import Recognizer
from clipact.classify.embedding_recognizer import EmbeddingRecognizer, HasFacts, RecognizerFacts
from clipact.clip_spec import Averaging, ClipSpec
from clipact.data.fingerprint import file_digest
from clipact.embed.video_embedding import VideoEmbedding
from clipact.engines.engine import Engine
from clipact.errors import UsageError, VideoError, choices
from clipact.evaluate.encode import EvalOptions, add_seconds, encode_samples
from clipact.evaluate.encoded_samples import EncodedSamples, describe_run, describe_views, files_seen
from clipact.evaluate.results import ClassificationResult, RetrievalResult
from clipact.evaluate.samples import EvalSample, EvalSamples, as_samples
from clipact.progress import no_progress

_TINY = float(np.finfo(np.float32).tiny)


def evaluate(
    recognizer: Recognizer,
    samples: EvalSamples | Sequence[EvalSample],
    *,
    averaging: Averaging = "embeddings",
    crops: int = 1,
    options: EvalOptions | None = None,
) -> ClassificationResult:
    """Compute the logits of every sample for every label of a recognizer.

    An `EmbeddingRecognizer` is evaluated on embeddings that are encoded in batches and cached. Any other is asked file
    by file: the logarithms of its scores are the logits, and what it does not rank has the least. Templates that await
    their weights get them from these samples, without their labels.

    Args:
        recognizer: What is evaluated.
        samples: Files and their labels. An unreadable file is named in the result and has no row.
        averaging: Over the views of a file: of their embeddings, logits or probabilities.
        crops: A view, 1 or 3.
        options: How it is carried out.

    Raises:
        UsageError: The recognizer knows no label of a sample, or cannot do what is asked: a probe averages embeddings
            alone, and one that is asked file by file takes neither averaging, crops, nor options but `progress`, `run`.
        ModelError: The model's text embeddings depend on the video, so that labels cannot be compared afterwards.
        DataError: Not one file could be read.
    """
    if isinstance(recognizer, EmbeddingRecognizer):
        return next(evaluate_wordings([recognizer], samples, averaging=averaging, crops=crops, options=options))
    samples, options, seconds = as_samples(samples), options or EvalOptions(), dict[str, float]()
    if (averaging, crops, replace(options, progress=no_progress, video_progress=no_progress, run={})) != (
        "embeddings", 1, EvalOptions()
    ):  # fmt: skip
        raise UsageError(
            f"{type(recognizer).__name__} is asked file by file: averaging, crops, cache, journal, resume, workers and "
            "frames_at_once are for recognizers that compare embeddings, such as ZeroShotClassifier"
        )
    facts = recognizer.facts() if isinstance(recognizer, HasFacts) else RecognizerFacts()
    truth = _truth(samples.items, recognizer.labels)
    start = time.perf_counter()
    answers = options.progress(_ask(recognizer, samples.items), len(samples), "evaluating")
    encoded = EncodedSamples.of(samples, list(answers))
    add_seconds(seconds, "total", start)
    run = _describe(facts, encoded) | {"views": {}}
    run["model"] = run["model"] or {"name": type(recognizer).__name__}
    run = encoded.describe(run, options.run)
    return encoded.classification_result(recognizer.labels, truth, encoded.vectors, run=run, seconds=seconds)


def evaluate_wordings(
    recognizers: Sequence[EmbeddingRecognizer],
    samples: EvalSamples | Sequence[EvalSample],
    *,
    averaging: Averaging = "embeddings",
    crops: int = 1,
    options: EvalOptions | None = None,
) -> Iterator[ClassificationResult]:
    """Evaluate recognizers that differ in their words alone, in order, on one encoding of the samples.

    Args and errors are those of `evaluate`.

    Raises:
        UsageError: Model, frames, clips or labels differ.
    """
    first, samples, options = recognizers[0], as_samples(samples), options or EvalOptions()
    seconds = dict[str, float]()
    for one in recognizers:
        if (one.model.key, one.spec, one.clips, one.decoder, one.labels) != (
            first.model.key, first.spec, first.clips, first.decoder, first.labels
        ):  # fmt: skip
            raise UsageError("wordings are compared on one encoding: the same model, frames, clips and labels")
        if averaging not in one.averagings:
            raise UsageError(
                f"averaging is {averaging!r}; {type(one).__name__} averages {' or '.join(one.averagings)} over views"
            )
    truth = _truth(samples.items, first.labels)
    start = time.perf_counter()
    if first.model.text_depends_on_video:  # a clip's embedding alone says nothing of words
        raise first.model.text_needs_video()
    clip_encoder = first.model.clip_encoder(first.spec, clips=first.clips, crops=crops, decoder=first.decoder)
    found = encode_samples(samples, first.model, clip_encoder, options, averaging=averaging, seconds=seconds)
    encoded = EncodedSamples.of(samples, found)
    run = _describe(first.facts(), encoded) | {"views": describe_views(clip_encoder, averaging)}
    run = encoded.describe(run, options.run)
    embeddings = encoded.vectors.reshape(len(encoded.vectors), -1, first.model.dim)
    for one in recognizers:
        words_start = time.perf_counter()
        adapted = one.adapt(embeddings)
        scores = adapted.score(embeddings, averaging=averaging)
        add_seconds(seconds, "words", words_start)
        add_seconds(seconds, "total", start)
        prompts = adapted.facts().prompts
        complete = run if prompts is None else run | {"prompts": prompts}
        yield encoded.classification_result(first.labels, truth, scores, run=complete, seconds=seconds)
        seconds, start = dict[str, float](), time.perf_counter()


def evaluate_retrieval(
    model: Engine,
    samples: EvalSamples,
    *,
    spec: ClipSpec | None = None,
    views: int = 1,
    crops: int = 1,
    options: EvalOptions | None = None,
) -> RetrievalResult:
    """Encode every file and every caption of a readable one; options as for `evaluate`.

    Captions are sentences already: no template is used.
    """
    options, seconds = options or EvalOptions(), dict[str, float]()
    start = time.perf_counter()
    if model.text_depends_on_video:
        raise model.text_needs_video()
    clip_encoder = model.clip_encoder(spec, clips=views, crops=crops)
    encoded = EncodedSamples.of(samples, encode_samples(samples, model, clip_encoder, options, seconds=seconds))
    captions = [(text, row) for row, i in enumerate(encoded.rows) for text in samples.items[i].texts]
    if not captions:
        raise UsageError("these samples have no captions: nothing can be retrieved")
    text_start = time.perf_counter()
    text = model.encode_text([sentence for sentence, _ in captions])
    add_seconds(seconds, "text", text_start)
    add_seconds(seconds, "total", start)
    run = _describe(RecognizerFacts(model=model), encoded) | {"views": describe_views(clip_encoder, "embeddings")}
    return RetrievalResult(
        samples=encoded.names,
        texts=tuple(sentence for sentence, _ in captions),
        text_of=np.array([row for _, row in captions], dtype=np.int64),
        visual=encoded.vectors,
        text=text,
        groups=encoded.groups,
        unreadable=encoded.unreadable,
        run=encoded.describe(run, options.run),
        seconds=seconds,
    )


def _describe(facts: RecognizerFacts, encoded: EncodedSamples) -> dict[str, object]:
    learnt = facts.files_seen | (frozenset() if facts.model is None else files_seen(facts.model))
    return describe_run(
        facts.model,
        dict(encoded.samples.data) or {"set": ""},
        digests=encoded.digests,
        seen=learnt,
        supervision=facts.supervision,
    )


def _ask(recognizer: Recognizer, items: Sequence[EvalSample]) -> Iterable[VideoEmbedding]:
    for item in items:
        if item.start_seconds is not None or item.end_seconds is not None:
            raise UsageError(f"{item.name} is a part of a file; {type(recognizer).__name__} takes whole files")
    place = {label: i for i, label in enumerate(recognizer.labels)}
    answers = recognizer.classify_many([item.path for item in items])
    for item, answer in zip(items, answers, strict=True):
        if isinstance(answer, VideoError):
            yield VideoEmbedding(name=item.name, cause=answer.cause)
            continue
        logits = np.full(len(place), math.log(_TINY))
        for entry in answer.ranked:
            logits[place[entry.label]] = math.log(max(entry.score, _TINY))
        yield VideoEmbedding(
            name=item.name,
            embeddings=logits.astype(np.float32)[None],  # in their place
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
