"""The figures of a result with their intervals, and the difference between two results on the same samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from clipact import metrics
from clipact.metrics.intervals import Difference, Interval
from clipact.scores import RetrievalScores, Scores

DRAWS = 1000
Result = Scores | RetrievalScores


@dataclass(frozen=True)
class Figure:
    """A figure by name. Shares are 0..1; a rank is counted from 1."""

    name: str
    interval: Interval
    share: bool = True


@dataclass(frozen=True)
class Comparison:
    """How much better the result `one` is than `other`, by their places in a list, and the p of McNemar's test."""

    one: int
    other: int
    difference: Difference
    mcnemar: float
    clustered: bool


def figures(result: Result) -> tuple[Figure, ...]:
    """What a result comes to: accuracies or average precision for labels, recalls and median ranks for retrieval.

    Intervals are bootstrapped over samples, or over their groups where the result has some.
    """
    if not result.samples:
        return ()
    return _retrieval_figures(result) if isinstance(result, RetrievalScores) else _label_figures(result)


def compare(results: Sequence[Result]) -> list[Comparison]:
    """Every two results of the same labels and samples, by top-1."""
    found = []
    for one, other in combinations(range(len(results)), 2):
        first, second = results[one], results[other]
        if not isinstance(first, Scores) or not isinstance(second, Scores):
            continue
        if (first.samples, first.labels) != (second.samples, second.labels) or not first.samples:
            continue
        ours, theirs = (metrics.hits(each.scores, each.truth) for each in (first, second))
        difference = metrics.paired_bootstrap(
            share_of(ours), share_of(theirs), len(ours), groups=first.groups, draws=DRAWS
        )
        found.append(Comparison(one, other, difference, metrics.mcnemar(ours, theirs), first.groups is not None))
    return found


def _label_figures(result: Scores) -> tuple[Figure, ...]:
    count, labels = result.scores.shape
    right = metrics.hits(result.scores, result.truth)
    made: list[tuple[str, Callable[[np.ndarray], float]]] = []
    if result.multi_truth is None:
        made.append(("top-1", share_of(right)))
        if labels > 5:
            made.append(("top-5", share_of(metrics.hits(result.scores, result.truth, k=5))))
        made.append(("mean per class", lambda rows: metrics.mean_per_class(right[rows], result.truth[rows])))
        if labels == 2:
            ahead, true = result.scores[:, 1] - result.scores[:, 0], result.truth == 1
            made.append((f"AUROC of {result.labels[1]}", lambda rows: metrics.auroc(ahead[rows], true[rows])))
        confidence = metrics.probabilities(result.scores).max(1)
        error = metrics.calibration_error
        made.append(("calibration error", lambda rows: error(confidence[rows], right[rows])))
    else:
        truth = result.multi_truth
        made.append(("mean AP", lambda rows: metrics.mean_ap(result.scores[rows], truth[rows])))
    return tuple(
        Figure(name, metrics.bootstrap(figure, count, groups=result.groups, draws=DRAWS)) for name, figure in made
    )


def _retrieval_figures(result: RetrievalScores) -> tuple[Figure, ...]:
    visuals = np.arange(len(result.samples))
    similarity = result.similarity
    ranks = {
        "text to visual": metrics.best_ranks(similarity, result.text_of, visuals),
        "visual to text": metrics.best_ranks(similarity.T, visuals, result.text_of),
    }
    # The texts of one visual are no independent draws: they are drawn with it.
    names = np.asarray(result.samples if result.groups is None else result.groups)
    groups = {"text to visual": names[result.text_of].tolist(), "visual to text": names.tolist()}
    made = []
    for way, found in ranks.items():
        for k in (1, 5, 10):
            interval = metrics.bootstrap(share_of(found < k), len(found), groups=groups[way], draws=DRAWS)
            made.append(Figure(f"{way}, recall@{k}", interval))
        median = metrics.bootstrap(
            lambda rows, found=found: metrics.median_rank(found[rows]),  # type: ignore[misc]
            len(found),
            groups=groups[way],
            draws=DRAWS,
        )
        made.append(Figure(f"{way}, median rank", median, share=False))
    return tuple(made)


def share_of(right: np.ndarray) -> Callable[[np.ndarray], float]:
    """The share of right answers among the samples with these row numbers."""
    return lambda rows: float(right[rows].mean())
