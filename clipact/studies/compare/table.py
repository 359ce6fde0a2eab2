"""The table of a comparison, and its files: comparison.json and comparison.html."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from clipact import __version__, metrics
from clipact.errors import ResultError
from clipact.evaluate.results import ClassificationResult, zero_shot_status
from clipact.metrics import Difference
from clipact.report.page import render, write_text
from clipact.report.sections import section
from clipact.studies.compare.comparison import Comparison, FailedRun, FinishedRun
from clipact.studies.compare.method import Method
from clipact.studies.compare.split import describe_samples

_DRAWS = 10_000  # of groups: fewer could not show p below 0.05 after a correction for a hundred pairs
_TOP = 5


@dataclass(frozen=True, kw_only=True)
class ResourceUsage:
    """What a method uses: means over its seeds, but for the least milliseconds and the most memory.

    parameters            of the tower that sees the clips; `trainable_parameters`: those that were trained
    gflops, milliseconds  a clip, as `clipact.models.profile.profile_model` has them
    training_seconds      of all steps, or of a probe's fit; what a frozen tower encodes once is not in it
    pretraining_seconds   the part of them without labels
    explained             of held-out clips, by pretraining: 1 - error / error of each patch's mean
    """

    parameters: int
    trainable_parameters: int
    gflops: float
    milliseconds: float
    training_seconds: float
    peak_memory_bytes: int
    pretraining_seconds: float | None = None
    explained: float | None = None


def mean_usage(facts: Sequence[dict[str, Any]]) -> ResourceUsage:
    """Average the resources that the results of a method's runs recorded."""

    def mean(name: str) -> float | None:
        given = [one[name] for one in facts if name in one]
        return float(np.mean(given)) if given else None

    return ResourceUsage(
        parameters=facts[0]["parameters"],
        trainable_parameters=facts[0]["trainable_parameters"],
        gflops=facts[0]["gflops"],
        milliseconds=min(one["milliseconds"] for one in facts),
        training_seconds=mean("training_seconds") or 0.0,
        peak_memory_bytes=max(one["peak_memory_bytes"] for one in facts),
        pretraining_seconds=mean("pretraining_seconds"),
        explained=mean("explained"),
    )


@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """A row that came to a result under one seed at least.

    runs, asked       seeds that are in its figures, and that should be
    top_1, top_5      means over seeds; top-5 is None for five labels or fewer
    of_seeds          top-1 of each seed
    per_class         the mean over labels; `classes` each label's share, nan without samples
    difference        of top-1 to the first row's, from the same draws of groups; None for that itself
    holm              its p, corrected for the number of rows
    zero_shot_status  whether it is zero-shot, and why not, as every result here says it
    """

    method: Method
    runs: int
    asked: int
    top_1: Difference
    top_5: Difference | None
    of_seeds: tuple[float, ...]
    per_class: float
    classes: tuple[float, ...]
    difference: Difference | None
    holm: float
    zero_shot_status: str
    zero_shot: bool
    usage: ResourceUsage

    @property
    def name(self) -> str:
        """As it was asked for."""
        return self.method.name


@dataclass(frozen=True, kw_only=True)
class Pair:
    """How much better the row `one` is than `other`, and the p of no difference, corrected for all pairs."""

    one: str
    other: str
    difference: Difference
    holm: float


@dataclass(frozen=True, kw_only=True)
class ComparisonTable:
    """A whole comparison; `rows[0]` is what the others are compared with. `results` are those of the first seed."""

    comparison: Comparison
    rows: tuple[MethodRow, ...]
    pairs: tuple[Pair, ...]
    failed: tuple[FailedRun, ...]
    results: tuple[ClassificationResult, ...]
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    unreadable: tuple[tuple[str, str], ...]
    groups: int

    @property
    def detectable(self) -> tuple[float, float] | None:
        """Half the width of the narrowest and of the widest interval of a difference: less could not be told from none.

        None with a single row.
        """
        halves = [(p.difference.high - p.difference.low) / 2 for p in self.pairs]
        return (min(halves), max(halves)) if halves else None

    @property
    def least_p(self) -> float:
        """Below it no p can be, of so few groups."""
        return least_p(self.groups)

    def facts(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        split, settings = self.comparison.split, self.comparison.settings
        return {
            "protocol": split.protocol.name,
            "title": split.protocol.title,
            "split": split.description,
            "train": describe_samples(split.train),
            "test": describe_samples(split.test),
            "clip": asdict(settings.clip),
            "seeds": self.comparison.seeds,
            "rows": [row_facts(row) for row in self.rows],
            "pairs": [{"one": p.one, "other": p.other, **asdict(p.difference), "p_holm": p.holm} for p in self.pairs],
            "detectable": self.detectable,
            "least_p": self.least_p,
            "failed": [failure_facts(one) for one in self.failed],
            "unreadable": [list(one) for one in self.unreadable],
        }


def row_facts(row: MethodRow) -> dict[str, Any]:
    """A row as plain values, for JSON."""
    return {
        "row": row.name,
        "kind": row.method.kind,
        "runs": row.runs,
        "of": row.asked,
        "top_1": [row.top_1.value, row.top_1.low, row.top_1.high],
        "top_5": row.top_5 and [row.top_5.value, row.top_5.low, row.top_5.high],
        "of_seeds": row.of_seeds,
        "per_class": row.per_class,
        "classes": [None if one != one else one for one in row.classes],
        "difference": row.difference and [row.difference.value, row.difference.low, row.difference.high],
        "p": row.difference and row.difference.p,
        "p_holm": row.difference and row.holm,
        "zero_shot_status": row.zero_shot_status,
        "zero_shot": row.zero_shot,
        **asdict(row.usage),
    }


def failure_facts(one: FailedRun) -> dict[str, Any]:
    """A failure as plain values, for JSON."""
    return {"row": one.method_run.method.name, "seed": one.method_run.seed, "failed": one.cause, "file": str(one.file)}


def tabulate(comparison: Comparison, outcomes: Sequence[FinishedRun | FailedRun]) -> ComparisonTable:
    """The table of what became of all runs; ResultError when nothing came to a result, or not on the same clips."""
    done = [one for one in outcomes if isinstance(one, FinishedRun)]
    failed = tuple(one for one in outcomes if isinstance(one, FailedRun))
    if not done:
        first = f"the first, {failed[0].method_run.method.name}: {failed[0].cause}" if failed else "there is none"
        raise ResultError(f"not one of {len(outcomes)} runs came to a result; {first}")
    base = done[0].result
    for one in done:
        if (one.result.samples, one.result.labels) != (base.samples, base.labels):
            raise ResultError(
                f"{one.method_run.method.name} was judged by {len(one.result.samples)} clips and others by "
                f"{len(base.samples)}: files have come or gone since; take another --out"
            )
    right = np.stack([metrics.hits(one.result.scores, one.result.true) for one in done])
    shares = metrics.bootstrap_shares(right, groups=base.groups, draws=_DRAWS)
    fifth = np.stack([metrics.hits(one.result.scores, one.result.true, k=_TOP) for one in done])
    fifths = metrics.bootstrap_shares(fifth, groups=base.groups, draws=_DRAWS) if len(base.labels) > _TOP else None
    places = {
        method.name: [i for i, one in enumerate(done) if one.method_run.method == method]
        for method in comparison.methods
    }
    groups = len(set(base.groups or base.samples))
    by_name = {name: _Shares(right[own], shares[own], groups=groups) for name, own in places.items() if own}
    pairs = _pairs(by_name)
    first = next(iter(by_name))
    compared = {name: by_name[name].above(by_name[first]) for name in by_name if name != first}
    corrected = dict(zip(compared, metrics.holm([one.p for one in compared.values()]), strict=True))
    rows = []
    for method in comparison.methods:
        if not (own := places[method.name]):
            continue
        mean = by_name[method.name]
        classes = np.stack([metrics.per_class(right[i], base.truth, labels=len(base.labels)) for i in own]).mean(0)
        run = done[own[0]].result.run
        rows.append(
            MethodRow(
                method=method,
                runs=len(own),
                asked=comparison.seeds if method.stochastic else 1,
                top_1=metrics.from_shares(mean.value, mean.shares),
                top_5=None if fifths is None else metrics.from_shares(float(fifth[own].mean()), fifths[own].mean(0)),
                of_seeds=tuple(right[own].mean(1).tolist()),
                per_class=float(np.nanmean(classes)),
                classes=tuple(classes.tolist()),
                difference=compared.get(method.name),
                holm=corrected.get(method.name, 1.0),
                zero_shot_status=zero_shot_status(run),
                zero_shot=run["zero_shot"] is True,
                usage=mean_usage([done[i].result.run["comparison"] for i in own]),
            )
        )
    return ComparisonTable(
        comparison=comparison,
        rows=tuple(rows),
        pairs=pairs,
        failed=failed,
        results=tuple(done[places[row.name][0]].result for row in rows),
        labels=base.labels,
        counts=tuple(np.bincount(base.truth, minlength=len(base.labels)).tolist()),
        unreadable=base.unreadable,
        groups=groups,
    )


class _Shares:
    """A row's share of right answers, its seeds' mean, in all and in each draw of `groups`."""

    def __init__(self, right: Bool[np.ndarray, "s n"], shares: Float[np.ndarray, "s draws"], *, groups: int) -> None:
        self.value, self.shares, self.groups = float(right.mean()), shares.mean(0), groups

    def above(self, other: "_Shares") -> Difference:
        found = metrics.from_shares(self.value, self.shares, (other.value, other.shares))
        return replace(found, p=max(found.p, least_p(self.groups)))


def least_p(groups: int) -> float:
    """The least p that so many groups can show: equals, too, would differ the same way in all of them that often.

    The bootstrap does not know that: of three groups that agree it makes 0.0002 (Cameron, Gelbach and Miller 2008 on
    few clusters; this is the bound of a paired sign test).
    """
    return 2.0 ** (1 - groups)


def _pairs(by_name: dict[str, _Shares]) -> tuple[Pair, ...]:
    found = [(one, other, by_name[one].above(by_name[other])) for one, other in combinations(by_name, 2)]
    corrected = metrics.holm([difference.p for *_, difference in found])
    return tuple(
        Pair(one=one, other=other, difference=difference, holm=p)
        for (one, other, difference), p in zip(found, corrected, strict=True)
    )


_TEMPLATE = Path(__file__).with_name("comparison.html.j2")


def write_comparison(table: ComparisonTable, folder: Path) -> list[Path]:
    """The two files; ResultError when one cannot be written."""
    text = json.dumps(table.facts(), indent=1, ensure_ascii=False, allow_nan=False)
    return [
        write_text(folder / "comparison.json", text + "\n"),
        write_text(folder / "comparison.html", page(table)),
    ]


def page(table: ComparisonTable) -> str:
    """One self-contained HTML page, every word of a result escaped."""
    return render(
        _TEMPLATE,
        table=table,
        split=table.comparison.split,
        clip=table.comparison.settings.clip,
        rows=table.rows,
        confusions=[section(result).pairs[:3] for result in table.results],
        run=table.results[0].run,
        version=__version__,
    )
