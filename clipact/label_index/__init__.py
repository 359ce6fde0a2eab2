"""Labels and captions by the million: vectors and what they stand for in, the nearest out.

Exact, or approximate by FAISS, as a stated rule says (choice.py). It knows no prompts and no model: vectors come from
whoever builds it, who also says which model made them.
"""

from clipact.label_index.build import Change, add, build, remove
from clipact.label_index.index import LabelIndex, Shares
from clipact.label_index.metadata import IndexEntry, IndexMetadata, IndexPlan, Neighbours, Quality
from clipact.label_index.quality import measure_quality

__all__ = [
    "Change",
    "IndexEntry",
    "IndexMetadata",
    "IndexPlan",
    "LabelIndex",
    "Neighbours",
    "Quality",
    "Shares",
    "add",
    "build",
    "measure_quality",
    "remove",
]
