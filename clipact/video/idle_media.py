"""Keep files open between two stretches of them.

Opening costs 40 ms of a film of six hours, whose index FFmpeg reads, and 35 ms of a 1080p file, of which it decodes the
first frames (CPU time, PyAV 18.1); seeking costs 0.2 ms. A file is held only while nobody decodes it, and taken by one
thread at a time.
"""

import os
import threading
from collections import OrderedDict

from clipact.file_memo import FileIdentity, is_still
from clipact.progress import no_progress
from clipact.video.media import Media

_LIMIT_BYTES = 128 * 2**20

# What an idle file holds: frames of 12 bits a pixel that its decoder keeps for the next ones, and its index.
_FRAMES_HELD = 8
_MOST_THREADS = 16  # FFmpeg takes no more of its own accord; each holds a frame
_FRAME_BYTES_A_PIXEL = 1.5
_INDEX_BYTES_A_FRAME = 32
_MOST_FILES = 32  # a process may have 256 open on macOS, 1,024 on Linux


class IdleMedia:
    """Files that were decoded, open for whoever comes next; for any number of threads."""

    def __init__(self, limit_bytes: int = _LIMIT_BYTES) -> None:
        """Begin empty.

        Args:
            limit_bytes: How much memory idle files may take, by a rough count: when it is more, the one that has been
                idle the longest is closed. The last one is kept, however large.
        """
        self._limit_bytes = limit_bytes
        self._abandoned: list[object] = []
        self._begin()
        os.register_at_fork(after_in_child=self._abandon)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._idle: OrderedDict[int, tuple[FileIdentity, Media]] = OrderedDict()
        self._count = 0

    def _abandon(self) -> None:
        """Leave what the parent process holds: the threads of its decoders, which closing waits for, are not here."""
        self._abandoned.append(self._idle)
        self._begin()

    def take(self, identity: FileIdentity, *, threads: int | None) -> Media | None:
        """Take an idle file out; None when there is none that is this file and decodes in as many threads."""
        with self._lock:
            for number, (known, media) in self._idle.items():
                if known == identity and media.threads == threads:
                    del self._idle[number]
                    media.read_error = ""
                    return media
        return None

    def give(self, identity: FileIdentity, media: Media) -> None:
        """Take in a file that nobody reads any more, or close it when it was changed.

        Its decoder must be empty: every GOP span was read to its end.
        """
        media.progress = no_progress  # whoever comes next may show another
        closing = []
        kept = identity.settled and is_still(identity)
        with self._lock:
            if kept:
                self._count += 1
                self._idle[self._count] = (identity, media)
            else:
                closing.append(media)
            while len(self._idle) > 1 and (
                len(self._idle) > _MOST_FILES or sum(map(_held_bytes, self._idle.values())) > self._limit_bytes
            ):
                closing.append(self._idle.popitem(last=False)[1][1])
        for old in closing:
            old.close()

    def close(self) -> None:
        """Close all that are idle."""
        with self._lock:
            idle, self._idle = self._idle, OrderedDict()
        for _, media in idle.values():
            media.close()


def _held_bytes(idle: tuple[FileIdentity, Media]) -> float:
    _, media = idle
    threads = media.threads or min(os.cpu_count() or 1, _MOST_THREADS)
    frames = (_FRAMES_HELD + threads) * media.context.width * media.context.height * _FRAME_BYTES_A_PIXEL
    return frames + float(_INDEX_BYTES_A_FRAME * media.stream.frames)
