"""Sections of a report page, and comparisons of its results: numbers and words for the template to lay out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from clipact import metrics
from clipact.evaluate.metric_values import mean_over_parts, share_of
from clipact.evaluate.results import ClassificationResult, RetrievalResult
from clipact.metrics.intervals import Difference
from clipact.metrics.reliability import Bin

_MOST_LABELS_WRITTEN = 24  # a table of counts can be read up to here; above, the matrix is drawn
Result = ClassificationResult | RetrievalResult
_PAIRS, _PAIR_SAMPLES, _QUERIES, _MISTAKES = 8, 3, 8, 8


@dataclass(frozen=True)
class ClassBar:
    """A label's share of right answers with its interval; nan without samples."""

    label: str
    count: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ConfusedPair:
    """How often `truth` was answered with `answer`, out of how many, and some of the samples."""

    truth: str
    answer: str
    count: int
    of: int
    samples: tuple[str, ...]


@dataclass(frozen=True)
class Query:
    """A sentence whose visual came far down: its rank from 1, and what came first."""

    text: str
    sample: str
    rank: int
    first: str


@dataclass(frozen=True)
class Mistake:
    """A sample of `truth` that was answered with `answer`, and how surely: the probability, 0..1."""

    sample: str
    truth: str
    answer: str
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Section:
    """One result's part of the page; what does not apply to its kind is empty."""

    result: Result
    matrix: tuple[tuple[int, ...], ...] = ()
    written: bool = False
    largest: int = 1
    pairs: tuple[ConfusedPair, ...] = ()
    classes: tuple[ClassBar, ...] = ()
    bins: tuple[Bin, ...] = ()
    queries: tuple[Query, ...] = ()
    mistakes: tuple[Mistake, ...] = ()

    @property
    def pictured(self) -> tuple[str, ...]:
        """The samples of which the page shows a picture."""
        shown = [sample for pair in self.pairs for sample in pair.samples]
        shown += [mistake.sample for mistake in self.mistakes]
        return tuple(shown + [name for query in self.queries for name in (query.sample, query.first)])

    @property
    def root(self) -> str:
        """Where the samples' names start, below the data folder."""
        return str((self.result.run.get("data") or {}).get("root", "."))

    @property
    def seconds(self) -> tuple[tuple[str, float, float], ...]:
        """Where the time went: name, seconds, share of the largest."""
        spent: Mapping[str, float] = self.result.seconds
        largest = max([*spent.values(), 1e-9])
        return tuple((name, value, value / largest) for name, value in spent.items())

    @property
    def repeat(self) -> tuple[tuple[str, str], ...]:
        """Every fact of the run, flat, by its dotted name."""
        return tuple(_flat("", self.result.run))


def section(result: Result) -> Section:
    """What is to be said of a result."""
    if not result.samples:
        return Section(result=result)
    if isinstance(result, RetrievalResult):
        return Section(result=result, queries=_worst_queries(result))
    if result.multi_truth is not None:
        return Section(result=result)
    answers = result.scores.argmax(1)
    matrix = metrics.confusion(answers, result.truth, labels=len(result.labels))
    right = metrics.hits(result.scores, result.truth)
    confidence = metrics.probabilities(result.scores).max(1)
    return Section(
        result=result,
        matrix=tuple(tuple(row) for row in matrix.tolist()),
        written=len(result.labels) <= _MOST_LABELS_WRITTEN,
        largest=max(1, int(matrix.max())),
        pairs=_pairs(result, matrix, answers),
        classes=_classes(result, right),
        bins=metrics.reliability(confidence, right),
        mistakes=_mistakes(result, answers, confidence),
    )


def _pairs(result: ClassificationResult, matrix: np.ndarray, answers: np.ndarray) -> tuple[ConfusedPair, ...]:
    made = []
    for truth, answer, count in metrics.most_confused(matrix, count=_PAIRS):
        rows = np.flatnonzero((result.truth == truth) & (answers == answer))
        surest = rows[np.argsort(-result.scores[rows, answer], kind="stable")][:_PAIR_SAMPLES]
        samples = tuple(result.samples[row] for row in surest)
        made.append(ConfusedPair(result.labels[truth], result.labels[answer], count, int(matrix[truth].sum()), samples))
    return tuple(made)


def _classes(result: ClassificationResult, right: np.ndarray) -> tuple[ClassBar, ...]:
    """Worst first; labels without samples last."""
    bars = []
    for number, label in enumerate(result.labels):
        rows = np.flatnonzero(result.truth == number)
        if not len(rows):
            bars.append(ClassBar(label, 0, *(float("nan"),) * 3))
            continue
        own = right[rows]
        groups = None if result.groups is None else [result.groups[row] for row in rows]
        draws = 1000 if len(result.labels) <= _MOST_LABELS_WRITTEN else 200
        interval = metrics.bootstrap(share_of(own), len(rows), groups=groups, draws=draws)
        bars.append(ClassBar(label, len(rows), interval.value, interval.low, interval.high))
    return tuple(sorted(bars, key=lambda bar: (bar.count == 0, bar.value, bar.label)))


def _mistakes(result: ClassificationResult, answers: np.ndarray, confidence: np.ndarray) -> tuple[Mistake, ...]:
    wrong = np.flatnonzero(answers != result.truth)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MISTAKES]
    return tuple(
        Mistake(
            result.samples[row], result.labels[result.truth[row]], result.labels[answers[row]], float(confidence[row])
        )
        for row in surest
    )


def _worst_queries(result: RetrievalResult) -> tuple[Query, ...]:
    similarity = result.similarity
    right, _ = metrics.match_captions(result.texts, result.text_of, len(result.samples))
    ranks = metrics.best_ranks(similarity, right)
    worst = np.argsort(-ranks, kind="stable")[:_QUERIES]
    return tuple(
        Query(
            result.texts[row],
            result.samples[result.text_of[row]],
            int(ranks[row]) + 1,
            result.samples[int(similarity[row].argmax())],
        )
        for row in worst
    )


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in _flat(f"{name}.{key}" if name else str(key), inner)]
    if isinstance(value, (list, tuple)):
        return [(name, ", ".join(map(str, value)))]
    return [(name, "unknown" if value is None else str(value))]


@dataclass(frozen=True)
class ResultComparison:
    """How much better the result `one` is than `other`, by their places in a list, and the p of McNemar's test."""

    one: int
    other: int
    difference: Difference
    mcnemar: float
    clustered: bool


def compare_results(results: Sequence[ClassificationResult | RetrievalResult]) -> list[ResultComparison]:
    """Every two results of the same labels, samples and parts, by the top-1 that their figures show."""
    found = []
    for one, other in combinations(range(len(results)), 2):
        first, second = results[one], results[other]
        if not isinstance(first, ClassificationResult) or not isinstance(second, ClassificationResult):
            continue
        if (first.samples, first.labels) != (second.samples, second.labels) or not first.samples:
            continue
        if first.parts.keys() != second.parts.keys() or not all(
            map(np.array_equal, first.parts.values(), second.parts.values())
        ):
            continue
        ours, theirs = (metrics.hits(each.scores, each.true) for each in (first, second))
        difference = metrics.paired_bootstrap(
            mean_over_parts(ours, first), mean_over_parts(theirs, second), len(ours), groups=first.groups
        )
        found.append(ResultComparison(one, other, difference, metrics.mcnemar(ours, theirs), first.groups is not None))
    return found
