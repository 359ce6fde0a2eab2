"""Zero-shot, probes and the supervised line on the same clips, frames and split: trained, judged, set side by side.

What trains is `clipact.train`, what judges is the one runner of `clipact.evaluate`; here stands what is compared, on
which split, what is done already, and what came out.
"""

from clipact.studies.compare.comparison import Comparison, Done, Failed, plan_comparison
from clipact.studies.compare.execution import Hands
from clipact.studies.compare.method import KINDS, Contender, read_contender
from clipact.studies.compare.settings import Settings, load_settings
from clipact.studies.compare.split import Split, read_split
from clipact.studies.compare.table import Row, Table, tabulate

__all__ = [
    "KINDS",
    "Comparison",
    "Contender",
    "Done",
    "Failed",
    "Hands",
    "Row",
    "Settings",
    "Split",
    "Table",
    "load_settings",
    "plan_comparison",
    "read_contender",
    "read_split",
    "tabulate",
]
