"""What an index keeps beside each vector, and what a search finds. No file is opened here."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64


@dataclass(frozen=True, kw_only=True)
class Entry:
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
