"""Zero-shot, probes and the supervised line on the same clips, frames and split: trained, judged, set side by side.

What trains is `clipact.train`, what judges is the one runner of `clipact.evaluate`; here stands what is compared, on
which split, what is done already, and what came out.
"""

from clipact.studies.compare.comparison import Comparison, FailedRun, FinishedRun, plan_comparison
from clipact.studies.compare.execution import ExecutionContext
from clipact.studies.compare.method import METHOD_KINDS, Method, parse_method
from clipact.studies.compare.settings import CompareSettings, load_settings
from clipact.studies.compare.split import ComparisonSplit, read_split
from clipact.studies.compare.table import ComparisonTable, MethodRow, tabulate

__all__ = [
    "METHOD_KINDS",
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
