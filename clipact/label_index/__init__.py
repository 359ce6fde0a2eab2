"""Index labels and captions by the million, and search the nearest to a query, exactly or by FAISS.

It knows no prompts and no model: vectors come from the caller, who also says which model made them.
"""

from clipact.label_index.build import IndexChange, add_entries, build_index, remove_entries
from clipact.label_index.faiss_build import measure_quality
from clipact.label_index.index import LabelIndex, Shares
from clipact.label_index.metadata import IndexEntry, IndexMetadata, IndexPlan, IndexQuality, Neighbours

__all__ = [
    "IndexChange",
    "IndexEntry",
    "IndexMetadata",
    "IndexPlan",
    "IndexQuality",
    "LabelIndex",
    "Neighbours",
    "Shares",
    "add_entries",
    "build_index",
    "measure_quality",
    "remove_entries",
]
