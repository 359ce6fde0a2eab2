"""Describe an index: its manifest `index.json` as dataclasses that are read strictly, entries and neighbours."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int64

from clipact import aliases
from clipact.config import parse
from clipact.errors import ConfigError, LabelIndexError
from clipact.label_index.storage import MANIFEST, FileRecord, IndexFolder


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """One label or caption: `id` is its own, `text` what is answered, `metadata` whatever else JSON can hold."""

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """The nearest k of each of q queries, nearest first; `rows` are -1 and `cosines` -inf where there are no more."""

    rows: Int64[np.ndarray, "q k"]
    cosines: Float32[np.ndarray, "q k"]


def id_key(id: str) -> int:
    """64 bits of an id's hash: what is looked up instead of the id, which is then compared."""
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "little")


FORMAT = 1
VectorPrecision = Literal["float32", "float16"]
IndexKind = Literal["exact", "hnsw", "ivf-pq"]


@dataclass(frozen=True, kw_only=True)
class IndexMetadata:
    """Describe the vectors: the model that made them, and their form.

    model, model_key  the name of the model that made them, and the hash of its weights
    wording           how texts were made into sentences, in words
    dim               the width of a vector
    precision         how a number is kept on disk
    """

    model: str
    model_key: str
    wording: str
    dim: int
    precision: VectorPrecision = "float32"

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ConfigError(f"dim is {self.dim}; a vector has at least one number")

    @property
    def prompts(self) -> str:
        """The name with which `wording` begins."""
        return self.wording.split(" ")[0]

    @property
    def dtype(self) -> np.dtype:
        """Of the numbers on disk."""
        return np.dtype("<f4" if self.precision == "float32" else "<f2")

    @property
    def row_bytes(self) -> int:
        """Of a vector on disk."""
        return self.dim * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class IndexPlan:
    """How neighbours are to be found: the kind (None: `choose_index_type` chooses), the memory and the recall@10."""

    kind: IndexKind | None = None
    memory_bytes: int | None = None
    recall: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise ConfigError(f"recall is {self.recall}; above 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class IndexSegment:
    """Consecutive rows. `keys` are the sorted hashes of their ids, then the rows that these belong to."""

    rows: int
    vectors: FileRecord
    entries: FileRecord
    offsets: FileRecord
    keys: FileRecord

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """All four."""
        return self.vectors, self.entries, self.offsets, self.keys


@dataclass(frozen=True, kw_only=True)
class FaissSettings:
    """Describe FAISS's file over the first `rows` rows.

    factory        the string from which FAISS's index factory makes it
    search_effort  efSearch of HNSW, nprobe of IVF
    """

    kind: IndexKind
    factory: str
    rows: int
    search_effort: int
    file: FileRecord


@dataclass(frozen=True, kw_only=True)
class IndexQuality:
    """How often the approximation finds what an exact search finds, over `queries` queries among `rows` rows.

    recall_1, recall_10  the share of the exact first, and first ten, that it finds
    first_changed        how often its first answer is another
    source               what was asked with, in words
    """

    recall_1: float
    recall_10: float
    first_changed: float
    queries: int
    rows: int
    source: str


@dataclass(frozen=True, kw_only=True)
class BuildProgress:
    """How far a build has come in its stream: `taken` entries, the hash over them, and how many said nothing new."""

    taken: int = 0
    digest: str = ""
    repeats: int = 0


@dataclass(frozen=True, kw_only=True)
class IndexManifest:
    """Describe an index: `removed` is a file of the sorted rows that count no longer."""

    format: int = FORMAT
    metadata: IndexMetadata
    plan: IndexPlan = field(default_factory=IndexPlan)
    segments: tuple[IndexSegment, ...] = ()
    removed: FileRecord | None = None
    faiss: FaissSettings | None = None
    quality: IndexQuality | None = None
    progress: BuildProgress = field(default_factory=BuildProgress)

    @property
    def rows(self) -> int:
        """All rows, removed ones too."""
        return sum(segment.rows for segment in self.segments)

    @property
    def removed_rows(self) -> int:
        """How many of them count no longer."""
        return 0 if self.removed is None else self.removed.bytes // 8

    @property
    def files(self) -> Iterator[FileRecord]:
        """Every data file."""
        for segment in self.segments:
            yield from segment.files
        if self.removed is not None:
            yield self.removed
        if self.faiss is not None:
            yield self.faiss.file


def read_index_manifest(folder: IndexFolder, name: str = MANIFEST) -> IndexManifest | None:
    """The manifest in a folder, None when there is none; LabelIndexError when it is damaged or of another format."""
    raw = folder.read_manifest(name)
    if raw is None:
        return None
    if raw.get("format") != FORMAT:
        raise LabelIndexError(
            f"{folder.path / name}: format is {raw.get('format')!r}; this version of clipact reads {FORMAT}"
        )
    try:
        manifest = parse(IndexManifest, aliases.rename(raw, "label index"))
    except ConfigError as error:
        raise LabelIndexError(f"{folder.path / name}: {error}") from error
    _check_sizes(folder, manifest)
    return manifest


def _check_sizes(folder: IndexFolder, manifest: IndexManifest) -> None:
    """What a manifest says must agree with itself: nothing is read beyond a file's end."""
    for segment in manifest.segments:
        rows = segment.rows
        wanted = {
            segment.vectors.name: rows * manifest.metadata.row_bytes,
            segment.offsets.name: 8 * (rows + 1),
            segment.keys.name: 12 * rows,
        }
        for record in segment.files:
            if rows < 1 or record.bytes != wanted.get(record.name, record.bytes):
                raise LabelIndexError(f"{folder.path / MANIFEST}: {record.name} cannot hold {rows:,} rows")
    if manifest.faiss is not None and not 0 < manifest.faiss.rows <= manifest.rows:
        raise LabelIndexError(f"{folder.path / MANIFEST}: FAISS's file has more rows than there are")
