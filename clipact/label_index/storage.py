"""Store an index in a folder: data files that are written once, and one manifest with their names and hashes.

Data files have random names; the manifest is `index.json`. A change writes new files and then replaces the manifest
in a single step: whatever is killed when, a reader finds the state before or the state after. Files that no manifest
names are deleted by the next change. JSON and plain arrays; nothing is unpickled.
"""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipact.atomic_write import atomic_write
from clipact.cache import Cache, content_key
from clipact.errors import CacheError, LabelIndexError

MANIFEST, BUILDING = "index.json", "building.json"
_LOCK = ".lock"
_DATA = re.compile(r"[0-9a-f]{16}\.[a-z]+")


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A data file of the folder: its name, its length, the sha256 of its bytes."""

    name: str
    bytes: int
    sha256: str


class IndexFolder:
    """An index's folder, as files: data files that never change, and manifests that are replaced whole."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def write(self, suffix: str, chunks: Iterable[bytes | memoryview]) -> FileRecord:
        """A new data file of these bytes, on disk when this returns."""
        digest, count, path = hashlib.sha256(), 0, self.new_path(suffix)
        with self._refusing(), path.open("xb") as file:
            for chunk in chunks:
                digest.update(chunk)
                count += file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return FileRecord(name=path.name, bytes=count, sha256=digest.hexdigest())

    def record(self, path: Path) -> FileRecord:
        """The record of a file that a library wrote under a name from `fresh`."""
        with self._refusing(), path.open("rb+") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        return FileRecord(name=path.name, bytes=path.stat().st_size, sha256=digest)

    def new_path(self, suffix: str) -> Path:
        """A path for a data file, under a name that none has had."""
        with self._refusing():
            self.path.mkdir(parents=True, exist_ok=True)
        return self.path / f"{secrets.token_hex(8)}.{suffix}"

    def commit(self, manifest: dict[str, Any], name: str = MANIFEST) -> None:
        """Replace the manifest in one step."""
        body = json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True)
        text = json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest()})[:-1] + f',\n"table": {body}}}\n'
        with self._refusing():
            self.path.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path / name, sync=True) as file:
                file.write(text.encode())
            self._sync()

    def read_manifest(self, name: str = MANIFEST) -> dict[str, Any] | None:
        """Read the manifest as it was committed; None when there is none, LabelIndexError when it is damaged."""
        path = self.path / name
        try:
            whole = json.loads(path.read_text(encoding="utf-8"))
            body = json.dumps(whole["table"], indent=1, ensure_ascii=False, sort_keys=True)
            sound = hashlib.sha256(body.encode()).hexdigest() == whole["sha256"]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LabelIndexError(f"{path} is damaged: {error}; build the index again") from error
        if not sound or not isinstance(whole["table"], dict):
            raise LabelIndexError(f"{path} is damaged: its hash is another; build the index again")
        return whole["table"]

    def memory_map(self, record: FileRecord, dtype: str) -> np.ndarray:
        """The file as a flat array, mapped and read when touched; nothing written to it reaches the file."""
        if record.bytes == 0:
            return np.empty(0, dtype)
        try:
            return np.memmap(self.path / record.name, dtype=dtype, mode="c")
        except (OSError, ValueError) as error:
            raise LabelIndexError(f"{self.path / record.name} cannot be read: {error}") from error

    def check(self, records: Sequence[FileRecord], cache: Cache | None = None) -> None:
        """LabelIndexError unless each file is there with the length and the hash of its record.

        With a `cache`, files that were found right before, and have not been touched since, are not read again.
        """
        stamp = [self._stat(record) for record in records]
        key = content_key("checked files 1", *stamp, *(record.sha256 for record in records))
        if cache is not None and cache.read("checked", key) is not None:
            return
        for record in records:
            with (self.path / record.name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != record.sha256:
                    raise LabelIndexError(
                        f"{self.path / record.name} is damaged: its sha256 is not the one in {MANIFEST}; build it again"
                    )
        if cache is not None:
            with suppress(CacheError):  # then it is read again the next time
                cache.write("checked", key, {"right": np.ones(1, np.uint8)})

    def delete_unused(self, kept: Iterable[FileRecord]) -> None:
        """Delete data files other than these, and what a kill left behind. Whoever has one mapped keeps it."""
        names = {record.name for record in kept}
        for path in self.path.iterdir():
            name = path.name
            if (_DATA.fullmatch(name) and name not in names) or (name[0] == "." and name.endswith(".part")):
                with suppress(OSError):
                    os.unlink(path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held by one writer at a time; LabelIndexError when another process has it. A kill lets go of it."""
        import fcntl

        with self._refusing():
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise LabelIndexError(f"{self.path} is being written by another process; wait until it ends") from None
            yield
        finally:
            os.close(handle)

    def is_free(self) -> bool:
        """Whether an index can be written here: no folder, an empty one, or an index's."""
        if not self.path.exists():
            return True
        if not self.path.is_dir():
            return False
        names = {path.name for path in self.path.iterdir()} - {_LOCK}
        return not names or bool(names & {MANIFEST, BUILDING})

    def _stat(self, record: FileRecord) -> str:
        path = self.path / record.name
        if not _DATA.fullmatch(record.name):
            raise LabelIndexError(f"{self.path / MANIFEST} names the file {record.name!r}, which is none of an index's")
        try:
            found = path.stat()
        except OSError as error:
            raise LabelIndexError(f"{path} is missing ({error.strerror}); build the index again") from error
        if found.st_size != record.bytes:
            raise LabelIndexError(
                f"{path} is damaged: {found.st_size:,} bytes where {MANIFEST} says {record.bytes:,}; build it again"
            )
        return f"{path.resolve()} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LabelIndexError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def _sync(self) -> None:
        with suppress(OSError):  # some file systems cannot do it to a folder
            handle = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
