"""Whether two results on the same samples differ, or only seem to."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from clipact import metrics
from clipact.evaluate.metric_values import mean_over_parts
from clipact.evaluate.results import ClassificationResult, RetrievalResult
from clipact.metrics.intervals import Difference


@dataclass(frozen=True)
class ResultComparison:
    """How much better the result `one` is than `other`, by their places in a list, and the p of McNemar's test."""

    one: int
    other: int
    difference: Difference
    mcnemar: float
    clustered: bool


def compare(results: Sequence[ClassificationResult | RetrievalResult]) -> list[ResultComparison]:
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
