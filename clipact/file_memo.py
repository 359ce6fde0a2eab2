"""Remember what was computed from a file, for as long as the file stays what it was.

A table may name stretches of one film in a thousand rows: its hash and its timeline are wanted for each of them, and
take seconds. What is remembered is held in this process alone, and is bounded; errors are not remembered.
"""

import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

V = TypeVar("V")


@dataclass(frozen=True, kw_only=True)
class FileIdentity:
    """Which file this is, and what tells that it was changed.

    settled  whether the next change is bound to change the identity: the last one was long enough ago
    """

    path: str
    size_bytes: int
    modified_ns: int
    inode: int
    settled: bool = field(compare=False)


# How far the clock of a file system may lag: two writes within that time can leave the same time stamp. Linux stamps
# with the time of its last tick, 1 to 10 ms old; FAT and some servers with whole seconds.
_CLOCK_SECONDS = 0.02
_COARSE_CLOCK_SECONDS = 2.0


def identify_file(path: str | Path) -> FileIdentity:
    """Return the identity of a file; links are followed. OSError when there is none."""
    resolved = os.path.realpath(path)
    status = Path(resolved).stat()
    lag_seconds = _CLOCK_SECONDS if status.st_mtime_ns % 10**9 else _COARSE_CLOCK_SECONDS
    return FileIdentity(
        path=resolved,
        size_bytes=status.st_size,
        modified_ns=status.st_mtime_ns,
        inode=status.st_ino,
        settled=abs(time.time_ns() - status.st_mtime_ns) > lag_seconds * 1e9,
    )


def is_still(identity: FileIdentity) -> bool:
    """Whether the file is there, and is what it was."""
    try:
        return identify_file(identity.path) == identity
    except OSError:
        return False


def _count(value: object) -> int:
    return 1


class FileMemo(Generic[V]):
    """What one function makes of files, each made once as long as it is remembered; for any number of threads."""

    def __init__(self, limit: int, size: Callable[[V], int] = _count) -> None:
        """Begin empty.

        Args:
            limit: How much may be held: when it is more, what was not asked for the longest is forgotten. What was
                asked for last is held, however large.
            size: How much of the limit a value takes; by default each takes 1.
        """
        self._limit = limit
        self._size = size
        self._forget()
        # A forked process has none of the threads that it would wait for, and a lock may be held by one of them.
        forget = weakref.WeakMethod(self._forget)
        os.register_at_fork(after_in_child=lambda: (known := forget()) and known())

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[FileIdentity, str], V] = OrderedDict()
        self._held_size = 0
        self._pending: dict[tuple[FileIdentity, str], Future[V]] = {}

    def recall(self, file: str | Path | FileIdentity, compute: Callable[[], V], *, about: str = "") -> V:
        """Return what is remembered of the file as it is now, else compute it.

        While one thread computes it, others that ask for the same wait. When it fails, each of them tries, too.

        Args:
            file: The file, or its identity from before it was opened, where it is open already.
            compute: Makes the value from the file.
            about: Keeps several values of one file apart.

        Raises:
            OSError: There is no such file. What `compute` raises comes through as well.
        """
        key = (file if isinstance(file, FileIdentity) else identify_file(file), about)
        while True:
            with self._lock:
                if key in self._held:
                    self._held.move_to_end(key)
                    return self._held[key]
                pending = self._pending.get(key)
                if pending is None:
                    mine = self._pending[key] = Future()
            if pending is None:
                return self._compute(key, compute, mine)
            wait([pending])
            if pending.exception() is None:
                return pending.result()

    def _compute(self, key: tuple[FileIdentity, str], compute: Callable[[], V], mine: "Future[V]") -> V:
        identity, _ = key
        try:
            value = compute()
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            mine.set_exception(error)
            raise
        unchanged = identity.settled and is_still(identity)
        with self._lock:
            del self._pending[key]
            if unchanged:
                self._hold(key, value)
        mine.set_result(value)
        return value

    def _hold(self, key: tuple[FileIdentity, str], value: V) -> None:
        self._held[key] = value
        self._held_size += self._size(value)
        while self._held_size > self._limit and len(self._held) > 1:
            _, forgotten = self._held.popitem(last=False)
            self._held_size -= self._size(forgotten)
