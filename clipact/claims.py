"""Claims: while one process or thread works on something, others that want the same thing wait for it.

A claim is a POSIX lock on one byte of one file; the byte's offset is a hash of what is claimed. The kernel drops the
locks of a process that ends, however it ends, so that no claim is ever stale and nothing has to be cleaned up.
Where the file system has no locks, claims hold among the threads of one process only.
"""

import errno
import hashlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LOOKS_EVERY_SECONDS = 0.25  # whether the run is being stopped
_LONGEST_SLEEP_SECONDS = 0.05


class ClaimFile:
    """The claims of this process in one file: one descriptor, which is never closed.

    POSIX locks belong to the process, which has two consequences: threads do not exclude each other by them, so that
    `_held` does; and closing any descriptor of the file would drop all of them, so that one descriptor is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._held: set[int] = set()
        self._changed = threading.Condition()  # guards all of the above

    @contextmanager
    def claim(
        self, names: Sequence[str], *, timeout_seconds: float, stopping: threading.Event | None = None
    ) -> Iterator[frozenset[str]]:
        """Hold names until the block ends, waiting for each that is held elsewhere.

        Names are claimed in one order by everyone, so that two who want the same several never wait for each other.
        A thread that holds a claim must not claim a second time inside the block: such a pair could wait for another
        one until the timeout.

        Args:
            names: What is claimed; any strings.
            timeout_seconds: How long to wait for all of them together; 0 takes those that are free.
            stopping: Ends the waiting when it is set.

        Returns:
            Those that are held. A name that was not free in time is left out, and the block is run all the same.
        """
        wanted: dict[int, list[str]] = {}
        for name in names:
            wanted.setdefault(_offset(name), []).append(name)
        deadline = time.monotonic() + timeout_seconds
        held: list[int] = []
        try:
            for offset in sorted(wanted):
                if self._acquire(offset, deadline, stopping or threading.Event()):
                    held.append(offset)
            yield frozenset(name for offset in held for name in wanted[offset])
        finally:
            for offset in held:
                self._release(offset)

    def _acquire(self, offset: int, deadline: float, stopping: threading.Event) -> bool:
        with self._changed:
            while offset in self._held:
                left_seconds = deadline - time.monotonic()
                if left_seconds <= 0 or stopping.is_set():
                    return False
                self._changed.wait(min(left_seconds, _LOOKS_EVERY_SECONDS))
            self._held.add(offset)
        try:
            if self._wait_for_lock(offset, deadline, stopping):
                return True
        except BaseException:
            self._forget(offset)
            raise
        self._forget(offset)
        return False

    def _wait_for_lock(self, offset: int, deadline: float, stopping: threading.Event) -> bool:
        """Whether the other processes leave it to us in time; where nobody can know, they do."""
        sleep_seconds = 0.001
        while self._lock(offset) is False:
            left_seconds = deadline - time.monotonic()
            if left_seconds <= 0 or stopping.wait(min(sleep_seconds, left_seconds)):
                return False
            sleep_seconds = min(2 * sleep_seconds, _LONGEST_SLEEP_SECONDS)
        return True

    def _lock(self, offset: int) -> bool | None:
        """Whether the byte is locked for this process now; None where nobody can know."""
        descriptor = self._open()
        if descriptor is None:
            return None
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except OSError as error:  # of the others ENOLCK, ENOTSUP and ENOSYS are network file systems without locks
            return False if error.errno in (errno.EAGAIN, errno.EACCES) else None
        return True

    def _release(self, offset: int) -> None:
        if self._descriptor is not None:
            with suppress(OSError):  # a lock service that went away: the lock goes with the process
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, offset)
        self._forget(offset)

    def _forget(self, offset: int) -> None:
        with self._changed:
            self._held.remove(offset)
            self._changed.notify_all()

    def _open(self) -> int | None:
        """The file's descriptor; None in a folder that cannot be written, and where there are no such locks."""
        with self._changed:
            if self._descriptor is None and fcntl is not None:
                with suppress(OSError):
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            return self._descriptor


_files: dict[tuple[int, str], ClaimFile] = {}


def claim_file(path: Path) -> ClaimFile:
    """Return this process's one ClaimFile of a path.

    A forked child gets its own: it inherits neither the locks of its parent nor what the parent's threads hold.
    """
    # Making one opens nothing, so that the loser of a race between two threads has nothing to close.
    return _files.setdefault((os.getpid(), os.path.realpath(path)), ClaimFile(path))


def _offset(name: str) -> int:
    """63 bits of a hash; the last offset is left out, since locks end before it."""
    return (int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 1) % (2**63 - 1)
