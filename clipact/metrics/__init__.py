"""How good answers are: pure functions of scores and of what is true, over numpy arrays. Nothing is read or printed.

Scores are of n samples for every label (n, l), higher is likelier; `truth` holds label ids. Shares are 0..1.
"""

from clipact.metrics.curves import auroc, average_precision, mean_ap, mean_ap_of_rows
from clipact.metrics.intervals import (
    Difference,
    Interval,
    bootstrap,
    bootstrap_shares,
    from_shares,
    holm,
    mcnemar,
    paired_bootstrap,
)
from clipact.metrics.ranks import (
    best_ranks,
    confusion,
    hits,
    match_captions,
    mean_per_class,
    median_rank,
    most_confused,
    per_class,
    recall,
    top_k,
)
from clipact.metrics.reliability import calibration_error, probabilities, reliability

__all__ = [
    "Difference",
    "Interval",
    "auroc",
    "average_precision",
    "best_ranks",
    "bootstrap",
    "bootstrap_shares",
    "calibration_error",
    "confusion",
    "from_shares",
    "hits",
    "holm",
    "match_captions",
    "mcnemar",
    "mean_ap",
    "mean_ap_of_rows",
    "mean_per_class",
    "median_rank",
    "most_confused",
    "paired_bootstrap",
    "per_class",
    "probabilities",
    "recall",
    "reliability",
    "top_k",
]
