"""A sweep over wordings: each is evaluated on one encoding of the video and compared with a baseline.

Each distinct sentence of all wordings is encoded once, and cached. A sweep keeps answers, not logits, and compares
every variant with the first on the same samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int

from clipact import metrics
from clipact.cache import Cache
from clipact.classify.text_classifier import TextClassifier, make_text_classifier, sentence_embedder
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.data.protocol import Protocol
from clipact.engines.engine import Engine
from clipact.errors import UsageError
from clipact.evaluate import EvalOptions, EvalSamples, evaluate_wordings
from clipact.metrics import Difference
from clipact.progress import ProgressBar, no_progress
from clipact.prompts import LabelSet, PromptSet
from clipact.studies.prompt_sweep.grid import Grid, Variant, variants

_DRAWS = 10_000  # of groups: fewer could not show p below 0.05 after a correction for 200 variants


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How often `truth` was answered with `answer` under a variant, and under the baseline."""

    truth: str
    answer: str
    count: int
    before: int


@dataclass(frozen=True, kw_only=True)
class VariantRow:
    """What came out for one variant.

    top_1        of all samples; `per_class` is the mean over labels
    difference   of top-1 to the baseline's, from the same bootstrap draws; None for the baseline itself
    mcnemar      the p of McNemar's exact test against the baseline
    holm         that p corrected for the number of variants; the bootstrap's p where samples come in groups
    flips        the share of samples that are answered otherwise; `cured` of them are right now, `caused` wrong now
    classes      the share of right answers of each label; nan without samples
    confusions   all pairs that this wording causes or cures, the largest change first
    weights      of the templates, when they were found
    sentences    distinct ones
    """

    variant: Variant
    top_1: Difference
    per_class: float
    difference: Difference | None = None
    mcnemar: float = 1.0
    holm: float = 1.0
    flips: float = 0.0
    cured: int = 0
    caused: int = 0
    classes: tuple[float, ...]
    confusions: tuple[Confusion, ...] = ()
    weights: tuple[float, ...] = ()
    sentences: int


@dataclass(frozen=True, kw_only=True, eq=False)
class VariantResults:
    """A variant's answers, which of them are right, and its templates' weights when they were found."""

    variant: Variant
    answers: Int[np.ndarray, " n"]
    right: Bool[np.ndarray, " n"]
    weights: tuple[float, ...]


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
    model: Engine,
    grid: Grid | None = None,
    *,
    baseline: str | None = None,
    options: EvalOptions | None = None,
    text_progress: ProgressBar = no_progress,
) -> Sweep:
    """Every variant of the grid on the samples of the protocol, beside a prompt set as it is (else the protocol's own).

    `options.cache` keeps embeddings, so that a second sweep decodes and encodes nothing. `text_progress` shows the
    batches of sentences. UsageError for captions.
    """
    begun, options = perf_counter(), options or EvalOptions()
    if samples.labels is None:
        raise UsageError("captions are sentences already: a sweep is for labels")
    tried = variants(grid or Grid(), samples.labels, baseline=baseline or protocol.words.templates)
    options = replace(
        options, run={"protocol": protocol.name, "title": protocol.title, "metric": protocol.metric, **options.run}
    )
    words = _words(model, samples.labels, tried, cache=options.cache or Cache(), progress=text_progress)
    found: dict[int, VariantResults] = {}
    first = None
    for frames in dict.fromkeys(variant.frames for variant in tried):
        places = [place for place, variant in enumerate(tried) if variant.frames == frames]
        spec = protocol.views.apply(model.spec).with_frames(frames)
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


def _words(
    model: Engine, labels: LabelSet, tried: Sequence[Variant], *, cache: Cache, progress: ProgressBar
) -> dict[PromptSet, TextClassifier]:
    """What clips are compared with under each wording, from one encoding of all their sentences."""
    wordings = list(dict.fromkeys(variant.prompts for variant in tried))
    texts = list(dict.fromkeys(prompt.text for prompts in wordings for prompt in prompts.fill(labels)))
    rows = sentence_embedder(model, cache=cache, progress=progress)(texts)
    place = {text: i for i, text in enumerate(texts)}

    def encode(sentences: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        return rows[[place[text] for text in sentences]]

    return {prompts: make_text_classifier(encode, labels, prompts) for prompts in wordings}


def compare_answers(
    answered: Sequence[VariantResults],
    truth: Int[np.ndarray, " n"],
    label_set: LabelSet,
    *,
    groups: Sequence[str] | None,
) -> list[VariantRow]:
    """A row for each variant, all of them beside the first; `groups` as in `ClassificationResult`."""
    labels, base = label_set.labels, answered[0]
    draws = 1000 if groups is None else _DRAWS
    shares = metrics.bootstrap_shares(np.stack([one.right for one in answered]), groups=groups, draws=draws)
    rows = []
    for one, drawn in zip(answered, shares, strict=True):
        value = float(one.right.mean())
        row = VariantRow(
            variant=one.variant,
            top_1=metrics.from_shares(value, drawn),
            per_class=metrics.mean_per_class(one.right, truth),
            classes=tuple(metrics.per_class(one.right, truth, labels=len(labels)).tolist()),
            weights=one.weights,
            sentences=len({prompt.text for prompt in one.variant.prompts.fill(label_set)}),
        )
        if one is not base:
            row = replace(
                row,
                difference=metrics.from_shares(value, drawn, (float(base.right.mean()), shares[0])),
                mcnemar=metrics.mcnemar(one.right, base.right),
                flips=float((one.answers != base.answers).mean()),
                cured=int((one.right & ~base.right).sum()),
                caused=int((base.right & ~one.right).sum()),
                confusions=_confusions(_answers_or_truth(one, truth), _answers_or_truth(base, truth), truth, labels),
            )
        rows.append(row)
    compared = [row for row in rows if row.difference is not None]
    clustered = [row.difference.p for row in compared if row.difference is not None]
    corrected = metrics.holm([row.mcnemar for row in compared] if groups is None else clustered)
    return rows[:1] + [replace(row, holm=p) for row, p in zip(rows[1:], corrected, strict=True)]


def _answers_or_truth(one: VariantResults, truth: np.ndarray) -> np.ndarray:
    """The answers; another one that is true, too, is as good as the label and confuses nothing."""
    return np.where(one.right, truth, one.answers)


def _confusions(
    answers: np.ndarray, before: np.ndarray, truth: np.ndarray, labels: Sequence[str]
) -> tuple[Confusion, ...]:
    now, then = (metrics.confusion(given, truth, labels=len(labels)) for given in (answers, before))
    change = now - then
    np.fill_diagonal(change, 0)
    pairs = sorted(np.argwhere(change).tolist(), key=lambda pair: -abs(change[*pair]))
    return tuple(
        Confusion(truth=labels[i], answer=labels[j], count=int(now[i, j]), before=int(then[i, j])) for i, j in pairs
    )
