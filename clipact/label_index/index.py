"""Search an index of labels or captions: nearest neighbours, and their softmax over all rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from clipact.cache import Cache
from clipact.errors import LabelIndexError, UsageError
from clipact.label_index import faiss as approximate
from clipact.label_index.exact import ExactResult, merge, no_neighbours, search_exactly
from clipact.label_index.metadata import IndexEntry, IndexKind, IndexManifest, Neighbours, read_index_manifest
from clipact.label_index.rows import IndexRows
from clipact.label_index.storage import MANIFEST, IndexFolder

CANDIDATES = 8  # IVF-PQ: so many for each list that is looked into have their cosines taken again


@dataclass(frozen=True, kw_only=True, eq=False)
class Shares:
    """The nearest rows of each query, and their probabilities in a softmax over all rows.

    probabilities  one a row of `nearest`; 0 where there is no more
    outside        the share of all other rows together
    error          the standard error of `outside`; 0 where every row was looked at
    """

    nearest: Neighbours
    probabilities: Float64[np.ndarray, "q k"]
    outside: Float64[np.ndarray, " q"]
    error: Float64[np.ndarray, " q"]


class LabelIndex:
    """An index on disk, open for searching; what is written to the folder meanwhile is not seen.

    index = LabelIndex.open("captions.index", model_key=model.key)
    found = index.search(clip_embeddings, 10)
    print([index.entry(row).text for row in found.rows[0]])
    """

    def __init__(self, folder: IndexFolder, manifest: IndexManifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.rows = IndexRows(folder, manifest)
        self._alive = self.rows.alive_mask()

    @classmethod
    def open(cls, path: str | Path, *, model_key: str | None = None, cache: Cache | None = None) -> "LabelIndex":
        """The index in a folder.

        Every file is compared with its hash; with a `cache` only once, as long as no file is touched.
        LabelIndexError when there is none, when a file is damaged, or when `model_key` is not its model's.
        """
        folder = IndexFolder(path)
        manifest = read_index_manifest(folder)
        if manifest is None:
            raise LabelIndexError(f"{path} holds no label index: `clipact index build SOURCE --out {path}` makes one")
        if model_key is not None and model_key != manifest.metadata.model_key:
            raise LabelIndexError(
                f"{path} was made by the model {manifest.metadata.model} ({manifest.metadata.model_key[:12]}…), "
                f"which is not the one that is used now ({model_key[:12]}…): build it again, or name its own model "
                "with --model"
            )
        try:
            folder.check(list(manifest.files), cache)
        except LabelIndexError:
            if (now := read_index_manifest(folder)) is None or now == manifest:
                raise
            return cls.open(path, model_key=model_key, cache=cache)  # it was written to while it was opened
        return cls(folder, manifest)

    def __len__(self) -> int:
        return self.rows.alive

    @property
    def kind(self) -> IndexKind:
        """How neighbours are found."""
        return "exact" if self.manifest.faiss is None else self.manifest.faiss.kind

    def entry(self, row: int) -> IndexEntry:
        """What a row stands for."""
        return self.rows.entry(row)

    def entries(self, rows: Sequence[int] | Int64[np.ndarray, " m"]) -> list[IndexEntry]:
        """What rows stand for; those below 0 are passed over."""
        return [self.rows.entry(int(row)) for row in rows if row >= 0]

    def search(self, queries: Float32[np.ndarray, "q d"], k: int, *, search_effort: int | None = None) -> Neighbours:
        """Find the k nearest rows of each unit vector.

        Args:
            queries: Unit vectors.
            k: How many rows a query.
            search_effort: efSearch of HNSW or nprobe of IVF, instead of the measured one.
        """
        self._check(queries, k)
        settings = self.manifest.faiss
        if settings is None:
            return self.search_exactly(queries, k).nearest
        effort = search_effort or settings.search_effort
        wanted = max(k, CANDIDATES * effort) if settings.kind == "ivf-pq" else k
        rows = approximate.search(
            self._faiss, queries, min(wanted, settings.rows), search_effort=effort, alive=self._alive
        )
        found = self._rescored(queries, rows, k)
        if settings.rows < len(self.rows):
            blocks = self.rows.blocks(start=settings.rows)
            found = merge(found, search_exactly(queries, blocks, k, alive=self._alive).nearest, k)
        return found

    def search_exactly(self, queries: Float32[np.ndarray, "q d"], k: int, *, scale: float | None = None) -> ExactResult:
        """The same by comparing with every row."""
        self._check(queries, k)
        return search_exactly(queries, self.rows.blocks(), k, alive=self._alive, scale=scale)

    def shares(self, queries: Float32[np.ndarray, "q d"], *, scale: float, k: int | None = None) -> Shares:
        """The softmax of scale x cosine over all rows, for the k nearest (by default sqrt(rows), 100 at least).

        Where an approximation does not look at every row, what the others hold is estimated from the retrieved rows
        and a uniform sample of 8 sqrt(rows) others (Rastogi and Van Durme, arXiv 1508.01596, section 3), so that of
        the sample some eight rows lie about where the retrieved ones end.
        """
        k = max(1, min(k or max(100, round(len(self) ** 0.5)), len(self)))
        if self.manifest.faiss is None:
            found = self.search_exactly(queries, k, scale=scale)
            assert found.log_total is not None
            return _shares(found.nearest, scale, found.log_total, np.zeros(len(queries)))
        nearest = self.search(queries, k)
        log_rest, error = self._rest(queries, nearest, scale)
        inside = _log_sum_exp(scale * nearest.cosines.astype(np.float64))
        log_total = np.logaddexp(inside, log_rest)
        # The share is rest / (inside + rest): its error by the delta method.
        return _shares(nearest, scale, log_total, error * np.exp(log_rest + inside - 2 * log_total))

    def _rest(
        self, queries: Float32[np.ndarray, "q d"], nearest: Neighbours, scale: float
    ) -> tuple[Float64[np.ndarray, " q"], Float64[np.ndarray, " q"]]:
        """log sum exp over the rows not in `nearest`, and the relative standard error of the sum."""
        sampled, vectors = self._sample
        logits = scale * (queries @ vectors.T).astype(np.float64)
        log_rest, error = np.full(len(queries), -np.inf), np.zeros(len(queries))
        for number, (line, own) in enumerate(zip(logits, nearest.rows, strict=True)):
            others = line[~np.isin(sampled, own)]
            missing = len(self) - int((own >= 0).sum())
            if missing == 0 or len(others) == 0:
                continue
            top = others.max()
            terms = np.exp(others - top)
            log_rest[number] = top + np.log(missing * terms.mean())
            if len(others) > 1:
                unseen = 1 - len(others) / missing if len(others) < missing else 0.0
                error[number] = terms.std(ddof=1) / terms.mean() * (unseen / len(others)) ** 0.5
        return log_rest, error

    @cached_property
    def _sample(self) -> tuple[Int64[np.ndarray, " m"], Float32[np.ndarray, "m d"]]:
        """Rows that count, drawn uniformly, and their vectors; the same for every query."""
        count = min(len(self), max(1000, round(8 * len(self) ** 0.5)))
        drawn = np.random.default_rng(0).choice(len(self), count, replace=False).astype(np.int64)
        if self._alive is not None:
            drawn = np.flatnonzero(self._alive)[drawn]
        rows = np.sort(drawn)
        return rows, self.rows.vectors(rows)

    @cached_property
    def _faiss(self) -> Any:
        assert self.manifest.faiss is not None
        path = self.folder.path / self.manifest.faiss.file.name
        return approximate.read(path, self.manifest.faiss, dim=self.manifest.metadata.dim)

    def _rescored(
        self, queries: Float32[np.ndarray, "q d"], candidates: Int64[np.ndarray, "q c"], k: int
    ) -> Neighbours:
        """The k best candidates of each query by their own vectors."""
        found = no_neighbours(len(queries), candidates.shape[1])
        for number, (query, rows) in enumerate(zip(queries, candidates, strict=True)):
            rows = np.unique(rows[rows >= 0])
            found.rows[number, : len(rows)] = rows
            found.cosines[number, : len(rows)] = self.rows.vectors(rows) @ query
        return merge(found, no_neighbours(len(queries), k), k)

    def _check(self, queries: Float32[np.ndarray, "q d"], k: int) -> None:
        if queries.shape[1] != self.manifest.metadata.dim:
            raise UsageError(f"queries have {queries.shape[1]} numbers; this index has {self.manifest.metadata.dim}")
        if k < 1:
            raise UsageError(f"k is {k}; at least 1 neighbour is asked for")
        if not len(self):
            raise LabelIndexError(f"{self.folder.path} is empty: add to it, or build it ({MANIFEST} names no row)")


def _shares(
    nearest: Neighbours, scale: float, log_total: Float64[np.ndarray, " q"], error: Float64[np.ndarray, " q"]
) -> Shares:
    probabilities = np.exp(scale * nearest.cosines.astype(np.float64) - log_total[:, None])
    outside = np.clip(1 - probabilities.sum(1), 0, 1)
    return Shares(nearest=nearest, probabilities=probabilities, outside=outside, error=error)


def _log_sum_exp(logits: Float64[np.ndarray, "q k"]) -> Float64[np.ndarray, " q"]:
    top = logits.max(1)
    return top + np.log(np.exp(logits - top[:, None]).sum(1))
