"""The figures of a result, each with its interval: what the terminal, the JSON and the report show alike.

Figures are of the samples that could be read. Where samples come in groups, whole groups are drawn for the interval.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Shaped

from clipact.evaluate.results import ClassificationResult, RetrievalResult
from clipact.metrics import (
    Interval,
    auroc,
    best_ranks,
    bootstrap,
    calibration_error,
    hits,
    match_captions,
    mean_ap_of_rows,
    mean_per_class,
    median_rank,
    probabilities,
)

_KS = (1, 5, 10)
Rows = Int[np.ndarray, " m"]


@dataclass(frozen=True, kw_only=True)
class MetricValue:
    """One figure: a share, 0..1, or a rank from 1 on.

    name       "top-1", "mean per class", "text to visual recall@5", "split 1 top-1"
    low, high  95 % of its bootstrap figures lie between them
    count      samples that it is of
    spread     the standard deviation over the parts, for a mean over parts; None otherwise
    headline   whether it is the protocol's own figure
    """

    name: str
    value: float
    low: float
    high: float
    count: int
    spread: float | None = None
    headline: bool = False

    @property
    def is_rank(self) -> bool:
        """Whether it counts from 1, instead of being a share."""
        return "rank" in self.name


def metric_values(
    result: ClassificationResult | RetrievalResult, *, draws: int = 1000, seed: int = 0
) -> tuple[MetricValue, ...]:
    """The figures of a result, the protocol's own first; none when nothing could be read."""
    if not result.samples:
        return ()
    found = _retrieval(result, draws, seed) if isinstance(result, RetrievalResult) else _labels(result, draws, seed)
    return tuple(sorted(found, key=lambda one: not one.headline))


def _labels(result: ClassificationResult, draws: int, seed: int) -> Iterator[MetricValue]:
    metric = result.run.get("metric", "top_1")
    right = hits(result.scores, result.true)
    groups = result.groups

    def figure(name: str, values: np.ndarray, *, headline: bool) -> MetricValue:
        """The mean of what each sample contributes; over parts, the mean of their means."""
        means = [float(values[rows].mean()) for rows in result.parts.values() if len(rows)] or [float(values.mean())]
        interval = bootstrap(mean_over_parts(values, result), len(values), groups=groups, draws=draws, seed=seed)
        return MetricValue(
            name=name,
            value=float(np.mean(means)),
            low=interval.low,
            high=interval.high,
            count=len(values),
            spread=float(np.std(means)) if len(means) > 1 else None,
            headline=headline,
        )

    yield figure("top-1", right, headline=metric == "top_1")
    if len(result.labels) > 5:
        yield figure("top-5", hits(result.scores, result.true, k=5), headline=False)
    interval = bootstrap(
        lambda rows: mean_per_class(right[rows], result.truth[rows]),
        len(right),
        groups=groups,
        draws=draws,
        seed=seed,
    )
    yield _figure("mean per class", interval, len(right), headline=metric == "mean_per_class")
    if result.multi_truth is None:
        confidence = probabilities(result.scores).max(1)
        interval = bootstrap(
            lambda rows: calibration_error(confidence[rows], right[rows]),
            len(right),
            groups=groups,
            draws=draws,
            seed=seed,
        )
        yield _figure("calibration error", interval, len(right))
    if len(result.labels) == 2:
        ahead, second = result.scores[:, 1] - result.scores[:, 0], result.truth == 1
        interval = bootstrap(
            lambda rows: auroc(ahead[rows], second[rows]), len(right), groups=groups, draws=draws, seed=seed
        )
        yield _figure(f"AUROC of {result.labels[1]}", interval, len(right))
    if metric == "mean_ap":
        true = result.multi_truth
        if true is None:
            true = np.eye(len(result.labels), dtype=bool)[result.truth]
        interval = bootstrap(mean_ap_of_rows(result.scores, true), len(true), groups=groups, draws=draws, seed=seed)
        yield _figure("mAP", interval, len(true), headline=True)
    for name, rows in result.parts.items():
        if not len(rows):
            continue
        own = None if groups is None else [groups[i] for i in rows]
        interval = bootstrap(share_of(right[rows]), len(rows), groups=own, draws=draws, seed=seed)
        yield _figure(f"{name} top-1", interval, len(rows))


def _retrieval(result: RetrievalResult, draws: int, seed: int) -> Iterator[MetricValue]:
    similarity = result.similarity
    visuals_of_text, texts_of_visual = match_captions(result.texts, result.text_of, len(result.samples))
    # A picture's captions are drawn together with it: they are not independent.
    clusters = np.asarray(result.groups if result.groups is not None else result.samples)
    ways = {
        "text to visual": (best_ranks(similarity, visuals_of_text), clusters[result.text_of]),
        "visual to text": (best_ranks(similarity.T, texts_of_visual), clusters),
    }
    for way, (ranks, groups) in ways.items():
        for k in _KS:
            inside = ranks < min(k, similarity.shape[1] if way == "text to visual" else similarity.shape[0])
            interval = bootstrap(
                share_of(inside),
                len(ranks),
                groups=groups.tolist(),
                draws=draws,
                seed=seed,
            )
            yield _figure(f"{way} recall@{k}", interval, len(ranks), headline=k == 1)
        interval = bootstrap(
            _median(ranks),
            len(ranks),
            groups=groups.tolist(),
            draws=draws,
            seed=seed,
        )
        yield _figure(f"{way} median rank", interval, len(ranks))


def _figure(name: str, interval: Interval, count: int, *, headline: bool = False) -> MetricValue:
    return MetricValue(
        name=name, value=interval.value, low=interval.low, high=interval.high, count=count, headline=headline
    )


def mean_over_parts(values: Shaped[np.ndarray, " n"], result: ClassificationResult) -> Callable[[Rows], float]:
    """What samples with these row numbers contribute, as a mean over the result's parts, or over all without parts."""
    weight = np.zeros(len(values))
    for rows in [rows for rows in result.parts.values() if len(rows)] or [np.arange(len(values))]:
        weight[rows] += 1 / len(rows)
    return lambda rows: float((values[rows] * weight[rows]).sum() / weight[rows].sum())


def share_of(right: Bool[np.ndarray, " n"]) -> Callable[[Rows], float]:
    """The share of right answers among the samples with these row numbers."""
    return lambda rows: float(right[rows].mean())


def _median(ranks: Int[np.ndarray, " n"]) -> Callable[[Rows], float]:
    return lambda rows: median_rank(ranks[rows])
