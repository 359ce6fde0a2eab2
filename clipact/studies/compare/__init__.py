"""Comparison of zero-shot models, probes and supervised models on the same clips, frames and split."""

from clipact.studies.compare.comparison import Comparison, FailedRun, FinishedRun, plan_comparison
from clipact.studies.compare.method import Method, parse_method
from clipact.studies.compare.settings import CompareSettings, ExecutionContext, load_settings
from clipact.studies.compare.split import ComparisonSplit, read_split
from clipact.studies.compare.table import ComparisonTable, MethodRow, tabulate

__all__ = [
    "CompareSettings",
    "Comparison",
    "ComparisonSplit",
    "ComparisonTable",
    "ExecutionContext",
    "FailedRun",
    "FinishedRun",
    "Method",
    "MethodRow",
    "load_settings",
    "parse_method",
    "plan_comparison",
    "read_split",
    "tabulate",
]
