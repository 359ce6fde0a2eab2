"""Build FAISS's part of an index: choose its type, train it, add rows, tune and measure its recall.

The recall is measured against an exact search and never assumed.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from clipact.errors import LabelIndexError
from clipact.label_index import faiss as approximate
from clipact.label_index.index import LabelIndex
from clipact.label_index.metadata import (
    FaissSettings,
    IndexKind,
    IndexManifest,
    IndexPlan,
    IndexQuality,
    Neighbours,
)
from clipact.progress import ProgressBar, no_progress

EXACT_NUMBERS = 200_000_000  # 40 ms a query on two cores (eval/benchmarks/label_index_scale.py), what a clip takes
TAIL_NUMBERS = 10_000_000  # added since FAISS's file was written, and compared one by one
_LINKS = 32  # of HNSW: each row has 64 in the lowest layer
_LISTS = (64, 65_536)  # the fewest and the most of IVF
_SUBVECTOR = 8  # numbers that share a byte
_SAVE_SECONDS = 300

SAMPLE = 256
_DEPTH = 10
# Of a drawn query and the row that it was made from. Lower than what clips have to their nearest captions, about 0.5
# for mini, so that what is told is not too good: at one efSearch of HNSW over 40,430 captions the recall@10 was 0.997
# for queries at 0.8, 0.98 at 0.5 and 0.85 at 0.3, and 0.945 for photographs.
_COSINE = 0.4
OWN_ROWS = f"rows of its own, moved to a cosine of {_COSINE}"  # what such queries are called
_SEARCH_EFFORTS = {"hnsw": (32, 4096), "ivf-pq": (4, 4096)}  # the first and the largest that is tried


@dataclass(frozen=True, kw_only=True)
class IndexType:
    """Describe a choice: the kind, and the string for FAISS's index factory ("" for an exact index)."""

    kind: IndexKind
    factory: str


def choose_index_type(count: int, dim: int, plan: IndexPlan) -> IndexType:
    """Choose the index type for so many vectors of that width.

    Without `plan.memory_bytes`, half of this machine's memory may be used.
    """
    if plan.kind is not None:
        kind = plan.kind
    elif count * dim <= EXACT_NUMBERS:
        kind = "exact"
    else:
        memory = plan.memory_bytes if plan.memory_bytes is not None else _half_of_memory()
        kind = "hnsw" if count * (2 * dim + 8 * _LINKS + 24) <= memory else "ivf-pq"
    if kind == "exact":
        return IndexType(kind=kind, factory="")
    if kind == "hnsw":
        return IndexType(kind=kind, factory=f"HNSW{_LINKS}_SQfp16")
    return IndexType(kind=kind, factory=f"IVF{_lists(count)},PQ{_codes(dim)}")


def _training_rows(factory: str, count: int) -> int:
    """How many rows train an index: 64 for each list of IVF, and no fewer than 20,000 where there are so many."""
    lists = int(factory.split(",")[0].removeprefix("IVF")) if factory.startswith("IVF") else 1
    return min(count, max(20_000, 64 * lists))


def _lists(count: int) -> int:
    """The power of two next to the square root of the count."""
    return max(_LISTS[0], min(_LISTS[1], 1 << round(count**0.5).bit_length()))


def _codes(dim: int) -> int:
    """How many bytes a code has: the largest divisor of the width that leaves eight numbers or more to a byte."""
    return next(codes for codes in range(max(1, dim // _SUBVECTOR), 0, -1) if dim % codes == 0)


def _half_of_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError) as error:
        raise LabelIndexError("this machine does not say how much memory it has; name it with --memory") from error


def build_faiss(
    index: LabelIndex,
    *,
    whole: bool,
    progress: ProgressBar = no_progress,
    keep: Callable[[IndexManifest], None] | None = None,
) -> IndexManifest:
    """Build or extend FAISS's file as the index's plan says, and return the manifest with it.

    Args:
        index: The index; its manifest and its files stay as they are.
        whole: Whether FAISS's file gets all rows; else a few new ones are left to be compared one by one.
        progress: Shows the blocks of rows that are added.
        keep: Receives a manifest from which a stopped build can be resumed, every five minutes.
    """
    manifest, rows = index.manifest, index.rows
    wanted = choose_index_type(len(index), manifest.metadata.dim, manifest.plan)
    if wanted.kind == "exact" or not len(index):
        return replace(manifest, faiss=None, quality=None)
    settings = manifest.faiss if manifest.faiss is not None and manifest.faiss.kind == wanted.kind else None
    if settings is not None:
        tail = len(rows) - settings.rows
        if (tail == 0 and manifest.quality is not None) or (not whole and tail * manifest.metadata.dim <= TAIL_NUMBERS):
            return manifest
        factory, start = settings.factory, settings.rows
        path = index.folder.path / settings.file.name
        made = approximate.read(path, settings, dim=manifest.metadata.dim, writable=True)
    else:
        factory, start = wanted.factory, 0
        made = _trained(index, factory)

    def written(end: int) -> IndexManifest:
        path = index.folder.new_path("faiss")
        approximate.write(made, path)
        new = FaissSettings(
            kind=wanted.kind, factory=factory, rows=end, search_effort=1, file=index.folder.record(path)
        )
        return replace(manifest, faiss=new, quality=None)

    end, saved = start, time.monotonic()
    blocks = sum(1 for _ in rows.spans(start=start))
    for first, vectors in progress(rows.blocks(start=start), blocks, wanted.kind):
        approximate.add(made, vectors)
        end = first + len(vectors)
        if keep is not None and end < len(rows) and time.monotonic() - saved > _SAVE_SECONDS:
            keep(written(end))
            saved = time.monotonic()
    done = written(end)
    del made  # the file is mapped from here on: not twice in memory
    return _tuned(LabelIndex(index.folder, done), recall=manifest.plan.recall)


def _trained(index: LabelIndex, factory: str) -> Any:
    count = _training_rows(factory, len(index.rows))
    sample = np.random.default_rng(0).choice(len(index.rows), count, replace=False)
    return approximate.train(factory, index.rows.vectors(np.sort(sample).astype(np.int64)))


def _tuned(index: LabelIndex, *, recall: float) -> IndexManifest:
    """The manifest with a search effort that reaches the recall@10, and the quality that was measured with it."""
    settings = index.manifest.faiss
    assert settings is not None
    queries = sample_queries(index)
    exact = index.search_exactly(queries, _DEPTH).nearest
    effort, most = _SEARCH_EFFORTS[settings.kind]
    while effort < min(most, settings.rows):
        recalls = _recalls(index.search(queries, _DEPTH, search_effort=effort), exact)
        # Two standard errors more than asked for, so that other queries than the sampled reach it too.
        if recalls.mean() - 2 * recalls.std() / len(recalls) ** 0.5 >= recall:
            break
        effort *= 2
    quality = measure_quality(index, queries, source=OWN_ROWS, search_effort=effort, exact=exact)
    return replace(index.manifest, faiss=replace(settings, search_effort=effort), quality=quality)


def sample_queries(index: LabelIndex, *, count: int = SAMPLE, seed: int = 0) -> Float32[np.ndarray, "q d"]:
    """Draw unit vectors at a cosine of 0.4 to random rows: as far from them as a clip is, or farther."""
    generator = np.random.default_rng(seed)
    rows = generator.choice(len(index.rows), min(count, len(index.rows)), replace=False)
    own = index.rows.vectors(np.sort(rows).astype(np.int64))
    noise = generator.standard_normal(own.shape).astype(np.float32)
    noise -= (noise * own).sum(1, keepdims=True) * own
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    drawn = _COSINE * own + (1 - _COSINE**2) ** 0.5 * noise
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def measure_quality(
    index: LabelIndex,
    queries: Float32[np.ndarray, "q d"],
    *,
    source: str,
    search_effort: int | None = None,
    exact: Neighbours | None = None,
) -> IndexQuality:
    """Measure how far the index agrees with an exact search; rows of equal cosine stand for each other."""
    exact = exact or index.search_exactly(queries, _DEPTH).nearest
    found = index.search(queries, _DEPTH, search_effort=search_effort)
    return IndexQuality(
        recall_1=float((found.cosines[:, 0] >= exact.cosines[:, 0] - 1e-6).mean()),
        recall_10=float(_recalls(found, exact).mean()),
        first_changed=float((found.rows[:, 0] != exact.rows[:, 0]).mean()),
        queries=len(queries),
        rows=len(index),
        source=source,
    )


def _recalls(found: Neighbours, exact: Neighbours) -> Float64[np.ndarray, " q"]:
    """The share of each query's first ten that was found; one that scores as high as the tenth is as good as it."""
    wanted = np.isfinite(exact.cosines).sum(1)
    tenth = np.take_along_axis(exact.cosines, wanted[:, None] - 1, axis=1)
    return np.minimum((found.cosines >= tenth - 1e-6).sum(1), wanted) / wanted
