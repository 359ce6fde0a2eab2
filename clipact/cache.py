"""The one cache on disk: arrays under the hash of all that they were computed from.

An entry is a safetensors file at ROOT/kind/ab/abcdef… Entries are written beside and renamed, so that a reader
never meets half of one; two processes that compute the same entry both succeed. A damaged entry counts as absent.
The store knows nothing of models or videos: whoever makes a key puts everything into it that the value depends on.
Its size is bounded: as entries are written, those whose last use is longest ago are removed.
"""

import hashlib
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from clipact.atomic_write import atomic_write
from clipact.cache_entries import (
    KINDS,
    KindUsage,
    Removed,
    estimate_bytes,
    evict,
    iterate_entries,
    measure_kind,
    remove_entries,
    size_on_disk,
)
from clipact.claims import claim_file
from clipact.errors import CacheError

DEFAULT_GIGABYTES = 20.0
_CLAIM_SECONDS = 600.0
_TOUCH_SECONDS = 3600.0  # how exactly the last use of an entry is known
_CHECK_BYTES = 256_000_000

_written_bytes: dict[str, int] = {}
"""What this process has written into each cache since it last looked at the cache's size."""


def default_root() -> Path:
    """CLIPACT_CACHE, else XDG_CACHE_HOME/clipact, else ~/.cache/clipact."""
    if named := os.environ.get("CLIPACT_CACHE"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "clipact"


def default_limit_bytes() -> int:
    """Return what CLIPACT_CACHE_GB says, in bytes, else 20 GB.

    Raises:
        CacheError: It is not a number above 0.
    """
    text = os.environ.get("CLIPACT_CACHE_GB", "").strip()
    try:
        gigabytes = float(text) if text else DEFAULT_GIGABYTES
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < 1e9:
        raise CacheError(
            f"CLIPACT_CACHE_GB is {text!r}; it takes the gigabytes that the cache may hold, a number above 0 such as 5"
        )
    return max(1, round(gigabytes * 1e9))


def content_key(*parts: str | bytes) -> str:
    """A hex sha256 of the parts; each part's length is hashed too, so that ("ab", "c") is not ("a", "bc")."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part  # names need not be UTF-8
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


class Cache:
    """Named arrays on disk by `kind` (a folder, one of KINDS) and `key` (a hex sha256).

    To compute an entry once, however many processes want it:

        if (kept := cache.read(kind, key)) is None:
            with cache.claim(kind, key):
                if (kept := cache.read(kind, key)) is None:  # nobody made it while we waited
                    cache.write(kind, key, kept := compute())

    Args:
        root: The folder; by default where CLIPACT_CACHE says.
        limit_bytes: How large it may become; by default what CLIPACT_CACHE_GB says. What several processes have
            written since they last looked comes on top: up to 256 MB or 2 % each, whichever is less.

    Raises:
        CacheError: CLIPACT_CACHE_GB is not a number above 0.
    """

    def __init__(self, root: str | Path | None = None, *, limit_bytes: int | None = None) -> None:
        self.root = Path(root) if root is not None else default_root()
        self.limit_bytes = default_limit_bytes() if limit_bytes is None else limit_bytes

    def read(self, kind: str, key: str) -> dict[str, np.ndarray] | None:
        """The arrays written under this key, or None when absent, damaged or unreadable."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = self._path(kind, key)
        try:
            with path.open("rb") as file:
                used_seconds = os.fstat(file.fileno()).st_mtime
                raw = file.read()
        except OSError:  # not there, or not for us to read: either way it has to be computed
            return None
        digest, body = raw[:32], raw[32:]
        if hashlib.sha256(body).digest() != digest:
            return None
        try:
            arrays = dict(load(body))
        except (SafetensorError, ValueError):
            return None
        if abs(time.time() - used_seconds) > _TOUCH_SECONDS:
            with suppress(OSError):  # evicted meanwhile, or not for us to write
                os.utime(path)
        return arrays

    def write(self, kind: str, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Put arrays under a key; an entry that is there already is replaced in one step.

        Raises:
            CacheError: The folder cannot be written.
        """
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
        self._count(size_on_disk(32 + len(body)))

    def keys(self, kind: str) -> Iterator[str]:
        """Yield the keys of the entries of one kind, in no order; entries may come and go meanwhile."""
        for entry in iterate_entries(self.root, kind):
            if not entry.partial:
                yield Path(entry.path).name

    def info(self) -> tuple[KindUsage, ...]:
        """Count the entries of each kind, their size and when they were last used."""
        return tuple(measure_kind(self.root, kind) for kind in KINDS)

    def clear(self, *, kinds: Collection[str] | None = None, older_than_seconds: float | None = None) -> Removed:
        """Remove entries, and what killed processes left; nothing but what the cache has made is touched.

        Args:
            kinds: Which; by default all. What is not one of KINDS is none.
            older_than_seconds: Only those that were last used longer ago; known to the hour.

        Returns:
            How many were removed, and how large they were.
        """
        chosen = [kind for kind in KINDS if kinds is None or kind in kinds]
        return remove_entries(self.root, chosen, older_than_seconds)

    @contextmanager
    def claim(self, kind: str, key: str, *, timeout_seconds: float = _CLAIM_SECONDS) -> Iterator[bool]:
        """Hold an entry while it is computed: who else claims it, in any process, waits until the block ends.

        It ends with the process, too, however that ends. Where the file system has no locks, only the threads of this
        process wait for each other.

        Args:
            kind: The entry's kind.
            key: Its key.
            timeout_seconds: How long to wait; 0 does not wait.

        Returns:
            Whether it is held; after the timeout the block is run without.
        """
        with self.claim_all(kind, [key], timeout_seconds=timeout_seconds) as held:
            yield key in held

    @contextmanager
    def claim_all(
        self,
        kind: str,
        keys: Sequence[str],
        *,
        timeout_seconds: float = _CLAIM_SECONDS,
        stopping: threading.Event | None = None,
    ) -> Iterator[frozenset[str]]:
        """Hold several entries, as `claim` does one; all that are held together have to be claimed in one call.

        They are claimed in one order by everyone. Whoever claims a second time inside the block could wait for someone
        who waits for him, until the timeout: there, claim with `timeout_seconds` 0.0.

        Args:
            kind: The entries' kind.
            keys: Their keys, in any order; one may be there twice.
            timeout_seconds: How long to wait for all of them; 0 takes those that are free.
            stopping: Ends the waiting when it is set.

        Returns:
            The keys that are held; after the timeout the block is run without the others.
        """
        names = {f"{kind}/{key}": key for key in keys}
        claims = claim_file(self.root / "claims")
        with claims.claim(list(names), timeout_seconds=timeout_seconds, stopping=stopping) as held:
            yield frozenset(names[name] for name in held)

    def _count(self, new_bytes: int) -> None:
        """Keep account of what was written; look at the size of the whole cache now and then."""
        root = os.path.realpath(self.root)
        before = _written_bytes.get(root)
        _written_bytes[root] = (before or 0) + new_bytes
        if before is not None and before + new_bytes < min(_CHECK_BYTES, self.limit_bytes // 50):
            return
        _written_bytes[root] = 0
        if estimate_bytes(self.root) <= self.limit_bytes:
            return
        with claim_file(self.root / "claims").claim(["eviction"], timeout_seconds=0.0) as held:
            if held:  # else another process is at it
                evict(self.root, self.limit_bytes)

    def _path(self, kind: str, key: str) -> Path:
        assert kind in KINDS, f"a new kind of entry needs a line in KINDS: {kind}"
        return self.root / kind / key[:2] / key

    def _refused(self, error: OSError) -> CacheError:
        return CacheError(
            f"the cache folder {self.root} cannot be used ({error.strerror or error}); "
            "set CLIPACT_CACHE to a folder that can be written"
        )
