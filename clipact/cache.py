"""The one cache on disk: arrays under the hash of all that they were computed from.

An entry is a safetensors file at ROOT/kind/ab/abcdef… Entries are written beside and renamed, so that a reader
never meets half of one; two processes that compute the same entry both succeed. A damaged entry counts as absent.
The store knows nothing of models or videos: whoever makes a key puts everything into it that the value depends on.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from clipact.atomic_write import atomic_write
from clipact.errors import CacheError


def default_root() -> Path:
    """CLIPACT_CACHE, else XDG_CACHE_HOME/clipact, else ~/.cache/clipact."""
    if named := os.environ.get("CLIPACT_CACHE"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "clipact"


def content_key(*parts: str | bytes) -> str:
    """A hex sha256 of the parts; each part's length is hashed too, so that ("ab", "c") is not ("a", "bc")."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


class Cache:
    """Named arrays on disk by `kind` (a folder, such as "text") and `key` (a hex hash)."""

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root) if root is not None else default_root()

    def read(self, kind: str, key: str) -> dict[str, np.ndarray] | None:
        """The arrays written under this key, or None when absent, damaged or unreadable."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            raw = self._path(kind, key).read_bytes()
        except OSError:  # not there, or not for us to read: either way it has to be computed
            return None
        digest, body = raw[:32], raw[32:]
        if hashlib.sha256(body).digest() != digest:
            return None
        try:
            return dict(load(body))
        except (SafetensorError, ValueError):
            return None

    def write(self, kind: str, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Put arrays under a key; an entry that is there already is replaced in one step."""
        from safetensors.numpy import save

        body = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        path = self._path(kind, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, mode=0o600) as file:
                file.write(hashlib.sha256(body).digest())
                file.write(body)
        except OSError as error:
            raise self._refused(error) from error

    def _path(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:2] / key

    def _refused(self, error: OSError) -> CacheError:
        return CacheError(
            f"the cache folder {self.root} cannot be used ({error.strerror or error}); "
            "set CLIPACT_CACHE to a folder that can be written"
        )
