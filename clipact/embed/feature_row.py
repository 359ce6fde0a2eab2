"""What a file of embeddings holds: a row a clip or a frame, and what all rows have in common.

The files are Parquet. Their columns are `schema_of`'s, and the key "clipact" of their metadata has a FeatureMetadata as
JSON. Where there is an error, the embedding is all NaN, not null: pyarrow before 26 writes a fixed-size list that is
null, and then cannot read the file ("Expected all lists to be of size ...").
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int32

from clipact._version import __version__
from clipact.cache import content_key
from clipact.clip_spec import ClipSpec
from clipact.config import parse, to_table
from clipact.errors import ConfigError, FeatureFileError, import_library

VERSION = 1
METADATA_KEY = b"clipact"


@dataclass(frozen=True, kw_only=True)
class FeatureMetadata:
    """What all rows of a file have in common.

    model, model_hash  the model's name, and the sha256 of its weights and of how they are used
    dim                the width d of an embedding
    clip               how clips are prepared
    clips, crops       of each video or part of one; an embedding is their mean
    precision          what clips were computed in: fp32, bf16 or fp16
    decoders           the libraries that decoded, with their versions
    per_frame          whether there is a row a frame, with the frame's features, or a row a clip
    clipact_version    of what wrote the file
    """

    model: str
    model_hash: str
    dim: int
    clip: ClipSpec
    clips: int = 1
    crops: int = 1
    precision: str = "fp32"
    decoders: str = ""
    per_frame: bool = False
    clipact_version: str = __version__

    @property
    def identity(self) -> str:
        """A hash that is the same where embeddings of two files may stand for each other.

        What decoded and which version of clipact wrote are left out: they are on record, and change no embedding by
        more than rounding.
        """
        return content_key("feature file 1", *(f"{name} {value}" for name, value in self._decisive().items()))

    def check_same(self, wanted: "FeatureMetadata", *, name: str) -> None:
        """Refuse embeddings that do not stand for the wanted ones.

        Raises:
            FeatureFileError: It says in what they differ; `name` is the file's.
        """
        ours, theirs = self._decisive(), wanted._decisive()
        differences = [
            f"{key.replace('_', ' ')} is {ours[key]}, not {theirs[key]}" for key in ours if ours[key] != theirs[key]
        ]
        if differences:
            raise FeatureFileError(
                f"{name} holds other embeddings than are wanted: {'; '.join(differences)}. "
                "Embed the videos again with this model and these frames"
            )

    def to_json(self) -> bytes:
        """Return the JSON that stands in the file."""
        facts = {"version": VERSION, **to_table(self), "identity": self.identity}
        return json.dumps(facts, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, raw: bytes, *, name: str) -> "FeatureMetadata":
        """Read the JSON of the file `name`.

        Raises:
            FeatureFileError: It is of another version, or none of ours.
        """
        try:
            facts = json.loads(raw)
            if not isinstance(facts, dict) or facts.pop("version", None) != VERSION:
                raise FeatureFileError(
                    f"{name} is of another version of the format; this clipact ({__version__}) reads version {VERSION}"
                )
            facts.pop("identity", None)
            return parse(cls, facts)
        except (ValueError, ConfigError) as error:
            raise FeatureFileError(f"{name} has metadata that clipact did not write: {error}") from error

    def _decisive(self) -> dict[str, str]:
        facts = to_table(self)
        clip = {f"clip {key}": value for key, value in facts.pop("clip").items()}
        kept = {key: value for key, value in facts.items() if key not in ("model", "decoders", "clipact_version")}
        return {key: str(value) for key, value in (kept | clip).items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureRow:
    """The embeddings of one video or part of one, or why it has none.

    path           as the user or the table gave it
    sha256         of the file; None where it could not be read, or is no file
    start_seconds, end_seconds  the part; None where it is the whole
    embedding      one vector; in a per-frame file one a frame; None where there is an error
    frames         per frame: the frame's number, in the order in which frames are shown
    seconds        per frame: when it is shown
    error          why it could not be read; None where it was
    """

    path: str
    sha256: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    embedding: Float32[np.ndarray, " d"] | Float32[np.ndarray, "t d"] | None = None
    frames: Int32[np.ndarray, " t"] | None = None
    seconds: Float64[np.ndarray, " t"] | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        assert (self.embedding is None) != (self.error is None), "a row has an embedding or an error"

    def check(self, metadata: FeatureMetadata) -> None:
        """Refuse a row that a file of this metadata cannot hold.

        Raises:
            FeatureFileError: Its embedding has another shape, or frames and embeddings are not as many.
        """
        if self.embedding is None:
            return
        count = None if self.frames is None else len(self.frames)
        shape = (count, metadata.dim) if metadata.per_frame else (metadata.dim,)
        timed = None if self.seconds is None else len(self.seconds)
        if self.embedding.shape != shape or count != timed or count == 0 or (count is None) == metadata.per_frame:
            raise FeatureFileError(
                f"{self.path}: an embedding of shape {self.embedding.shape} with {count} frames and {timed} times; "
                f"the file's are {'(frames, ' if metadata.per_frame else '('}{metadata.dim})"
            )


def as_text(path: str) -> str:
    """Return the path as Parquet can hold it: bytes that are not UTF-8 are written as \\udcXX."""
    return path.encode("utf-8", "backslashreplace").decode()


def schema_of(metadata: FeatureMetadata) -> Any:
    """Return the columns of a file, as a pyarrow.Schema."""
    arrow = import_library("pyarrow")
    columns: Mapping[str, Any] = {
        "path": arrow.string(),
        "sha256": arrow.string(),
        "start_seconds": arrow.float64(),
        "end_seconds": arrow.float64(),
        "model": arrow.string(),
        "model_hash": arrow.string(),
        **({"frame": arrow.int32(), "seconds": arrow.float64()} if metadata.per_frame else {}),
        "embedding": arrow.list_(arrow.float32(), metadata.dim),
        "error": arrow.string(),
    }
    return arrow.schema(list(columns.items()), metadata={METADATA_KEY: metadata.to_json()})
