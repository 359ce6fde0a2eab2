"""What each wording answered, beside a baseline on the same samples: figures, paired tests, and what changes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from clipact import metrics
from clipact.metrics import Difference
from clipact.prompts import LabelSet
from clipact.studies.prompt_sweep.grid import Variant

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


def compare_answers(
    answered: Sequence[VariantResults],
    truth: Int[np.ndarray, " n"],
    label_set: LabelSet,
    *,
    groups: Sequence[str] | None,
) -> list[VariantRow]:
    """A row for each variant, all of them beside the first; `groups` as in `Scores`."""
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
                confusions=_confusions(_judged(one, truth), _judged(base, truth), truth, labels),
            )
        rows.append(row)
    compared = [row for row in rows if row.difference is not None]
    clustered = [row.difference.p for row in compared if row.difference is not None]
    corrected = metrics.holm([row.mcnemar for row in compared] if groups is None else clustered)
    return rows[:1] + [replace(row, holm=p) for row, p in zip(rows[1:], corrected, strict=True)]


def _judged(one: VariantResults, truth: np.ndarray) -> np.ndarray:
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
