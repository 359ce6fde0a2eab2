"""Zero-shot, probes and the supervised line on the same clips, frames and split: trained, judged, set side by side.

What trains is `clipact.training`, what judges is the one runner of `clipact.evaluate`; here stands what is compared, on
which split, what is done already, and what came out.
"""

from clipact.studies.comparison.contender import KINDS, Contender, read_contender
from clipact.studies.comparison.hands import Hands
from clipact.studies.comparison.run import Comparison, Done, Failed, plan_comparison
from clipact.studies.comparison.settings import Settings, load_settings
from clipact.studies.comparison.split import Split, read_split
from clipact.studies.comparison.table import Row, Table, tabulate

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
