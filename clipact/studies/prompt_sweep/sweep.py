"""What each wording would have scored, on one encoding of the video a number of frames, beside a baseline.

Samples are judged by the one evaluation runner; each distinct sentence of all wordings is encoded once, and kept in the
store. A sweep keeps answers, not logits, and compares every variant with the first on the same samples.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipact import metrics
from clipact.cache import Cache, content_key
from clipact.classify.zero_shot import TextClassifier, ZeroShotClassifier, make_text_classifier
from clipact.data.protocol import Protocol
from clipact.errors import CacheError, UsageError
from clipact.evaluate import EvalOptions, EvalSamples, evaluate_wordings
from clipact.models.zoo import Model
from clipact.progress import ProgressBar, no_progress
from clipact.prompts import LabelSet, PromptSet
from clipact.studies.prompt_sweep.grid import Grid, Variant, variants
from clipact.studies.prompt_sweep.variant_results import VariantResults, VariantRow, compare_answers


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A whole sweep; `rows[0]` is the baseline, the others stand in the grid's order. `counts` are samples a label."""

    rows: tuple[VariantRow, ...]
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    samples: int
    unreadable: tuple[tuple[str, str], ...]
    clustered: bool
    run: dict[str, Any]
    seconds: float

    @property
    def best_first(self) -> list[VariantRow]:
        """The rows by top-1; among equals the baseline, then the fewest sentences."""
        return sorted(self.rows, key=lambda row: (-row.top_1.value, row is not self.rows[0], row.sentences))


def sweep(
    protocol: Protocol,
    samples: EvalSamples,
    model: Model,
    grid: Grid | None = None,
    *,
    baseline: str | None = None,
    options: EvalOptions | None = None,
    watch_words: ProgressBar = no_progress,
) -> Sweep:
    """Every variant of the grid on the samples of the protocol, beside a prompt set as it is (else the protocol's own).

    `options.cache` keeps embeddings, so that a second sweep decodes and encodes nothing. `watch_words` is
    given the batches of sentences, as by `DualEncoder.encode_text`. UsageError for captions.
    """
    begun, options = perf_counter(), options or EvalOptions()
    if samples.labels is None:
        raise UsageError("captions are sentences already: a sweep is for labels")
    tried = variants(grid or Grid(), samples.labels, baseline=baseline or protocol.words.templates)
    options = replace(
        options, run={"protocol": protocol.name, "title": protocol.title, "metric": protocol.metric, **options.run}
    )
    words = _words(model, samples.labels, tried, cache=options.cache or Cache(), watch=watch_words)
    found: dict[int, VariantResults] = {}
    first = None
    for frames in dict.fromkeys(variant.frames for variant in tried):
        places = [place for place, variant in enumerate(tried) if variant.frames == frames]
        spec = protocol.views.apply(model.encoder.spec).with_frames(frames)
        classifiers = [
            ZeroShotClassifier(
                model,
                samples.labels,
                prompts=tried[place].prompts,
                clips=protocol.views.views,
                spec=spec,
                words=words[tried[place].prompts],
            )
            for place in places
        ]
        results = evaluate_wordings(
            classifiers, samples, averaging=protocol.views.averaging, crops=protocol.views.crops, options=options
        )
        for place, result in zip(places, results, strict=True):
            first = first or result
            if result.samples != first.samples:
                raise UsageError(f"with {frames} frames other files could be read: {result.unreadable[:3]}")
            found[place] = VariantResults(
                variant=tried[place],
                answers=result.scores.argmax(1),
                right=metrics.hits(result.scores, result.true),
                weights=tuple(result.run["prompts"]["weights"]),
            )
    assert first is not None
    answered = [found[place] for place in range(len(tried))]
    rows = compare_answers(answered, first.truth, samples.labels, groups=first.groups)
    return Sweep(
        rows=tuple(rows),
        labels=first.labels,
        counts=tuple(np.bincount(first.truth, minlength=len(first.labels)).tolist()),
        samples=len(first.samples),
        unreadable=first.unreadable,
        clustered=first.groups is not None,
        run={key: value for key, value in first.run.items() if key != "prompts"},
        seconds=perf_counter() - begun,
    )


@torch.inference_mode()
def _words(
    model: Model, labels: LabelSet, tried: Sequence[Variant], *, cache: Cache, watch: ProgressBar
) -> dict[PromptSet, TextClassifier]:
    """What clips are compared with under each wording, from one encoding of all their sentences."""
    wordings = list(dict.fromkeys(variant.prompts for variant in tried))
    texts = list(dict.fromkeys(prompt.text for prompts in wordings for prompt in prompts.fill(labels)))
    rows = _encoded(model, texts, cache=cache, watch=watch)
    place = {text: i for i, text in enumerate(texts)}

    def encode(said: Sequence[str]) -> Tensor:
        return rows[[place[text] for text in said]]

    return {prompts: make_text_classifier(encode, labels, prompts) for prompts in wordings}


def _encoded(model: Model, texts: list[str], *, cache: Cache, watch: ProgressBar) -> Tensor:
    key = content_key("sentences 1", model.key, *texts)
    if (kept := cache.read("text", key)) is not None:
        return torch.from_numpy(kept["rows"]).to(model.encoder.log_scale.device)
    rows = model.encoder.encode_text(texts, progress=watch)
    try:
        cache.write("text", key, {"rows": rows.float().cpu().numpy()})
    except CacheError as error:  # a cache that cannot be written costs time, not the answer
        warnings.warn(str(error), stacklevel=2)
    return rows
