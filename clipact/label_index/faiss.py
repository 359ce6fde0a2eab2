"""Call FAISS (Douze et al., arXiv 2401.08281): the only file that imports it.

Vectors are unit, so the inner product is the cosine. FAISS finds candidates; cosines are taken again from the vectors
themselves, so that what an approximation costs is only what it does not find.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from clipact.errors import LabelIndexError, import_library
from clipact.label_index.metadata import FaissSettings


def train(factory: str, sample: Float32[np.ndarray, "n d"], *, seed: int = 0) -> Any:
    """An empty index of FAISS's, made by its factory from this string and trained on the sample."""
    faiss = _faiss()
    index = faiss.index_factory(sample.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    if hasattr(index, "hnsw"):
        # Twice the usual: over 100,000 vectors the build takes 1.4 times as long, and with efSearch 128 it misses half
        # as many of the ten (recall@10 0.9975, 0.9951 with 40); with 160 0.9994, at three times the usual build.
        index.hnsw.efConstruction = 80
    if hasattr(index, "cp"):
        index.cp.seed = seed
        index.cp.min_points_per_centroid = 1  # few vectors make a poor index, and that is measured
    index.train(sample)
    return index


def add(index: Any, vectors: Float[np.ndarray, "n d"]) -> None:
    """Add vectors after those that are there."""
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))


def search(
    index: Any,
    queries: Float32[np.ndarray, "q d"],
    k: int,
    *,
    search_effort: int,
    alive: Bool[np.ndarray, " n"] | None = None,
) -> Int64[np.ndarray, "q k"]:
    """Rows of k candidates each, -1 where there are fewer; those that do not count are passed over."""
    faiss = _faiss()
    chosen: dict[str, Any] = {}
    if alive is not None:
        bits = np.packbits(alive[: index.ntotal], bitorder="little")
        chosen["sel"] = faiss.IDSelectorBitmap(bits)
    if hasattr(index, "hnsw"):
        parameters = faiss.SearchParametersHNSW(efSearch=max(search_effort, k), **chosen)
    else:
        parameters = faiss.SearchParametersIVF(nprobe=min(search_effort, index.nlist), **chosen)
    return index.search(np.ascontiguousarray(queries), k, params=parameters)[1]


def write(index: Any, path: Path) -> None:
    """Write the index as a file."""
    faiss = _faiss()
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        path.unlink(missing_ok=True)
        raise LabelIndexError(f"{path} cannot be written: {_last_line(error)}") from error


def read(path: Path, settings: FaissSettings, *, dim: int, writable: bool = False) -> Any:
    """The index in a file, mapped into memory unless it is to be added to; LabelIndexError when it is another."""
    faiss = _faiss()
    # Inverted lists are mapped by one flag, graphs and flat codes by a newer one; with neither it is read whole.
    mapped = faiss.IO_FLAG_MMAP if settings.kind == "ivf-pq" else getattr(faiss, "IO_FLAG_MMAP_IFC", 0)
    try:
        index = faiss.read_index(str(path), 0 if writable else mapped)
    except RuntimeError as error:
        raise LabelIndexError(f"{path} is not an index that FAISS can read: {_last_line(error)}") from error
    kind = "hnsw" if hasattr(index, "hnsw") else "ivf-pq" if hasattr(index, "nlist") else type(index).__name__
    if (index.d, index.ntotal, kind) != (dim, settings.rows, settings.kind):
        raise LabelIndexError(
            f"{path} holds {index.ntotal:,} vectors of {index.d} numbers as {kind}; "
            f"wanted {settings.rows:,} of {dim} as {settings.kind}: build the index again"
        )
    return index


def _faiss() -> Any:
    return import_library("faiss")  # 0.1 s, and its stubs know half of it


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
