"""What an unfinished run has embedded so far, on disk: whole records, appended; a torn last one is cut off.

A record is a unit of rows, the number of its first one and the embeddings found for them. Rows form the same units
after a resume as before the kill, so that what follows comes out bit for bit as it would have. Records that do not
follow each other (two processes wrote one file) end what is taken.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

import numpy as np

from clipact.clip_spec import FrameStamp
from clipact.embed.video_embedding import VideoEmbedding
from clipact.errors import ResultError

_MAGIC = b"clipact embedding journal 1\n"
_ARRAYS = ("embeddings", "features")  # of a VideoEmbedding, after each other


class Journal:
    """Embeddings of consecutive units of rows, in one file. `identity` is the hash of all that decides them."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self.identity = identity
        self._next = 0  # the number of the first row of the record to come

    def resume(self) -> int:
        """Return how many rows are there in whole records that follow each other; 0 when there is no file.

        What comes after them is cut off.

        Raises:
            ResultError: It is of another run.
        """
        try:
            with self.path.open("rb") as file:
                head = self._head()
                begins = file.read(len(head))
                if begins != head:
                    if len(begins) < len(head) and head.startswith(begins):  # killed before the first line was whole
                        self.start()
                        return 0
                    raise ResultError(
                        f"{self.path} is the journal of another run (other videos, model, frames or averaging): "
                        "leave out --resume to begin anew"
                    )
                end, rows = file.tell(), 0
                for first, count in _records(file, whole=False):
                    if first != rows:
                        break
                    end, rows = file.tell(), rows + count
            if end < self.path.stat().st_size:
                os.truncate(self.path, end)
        except FileNotFoundError:
            self.start()
            return 0
        except OSError as error:
            raise self._refused(error) from error
        self._next = rows
        return rows

    def read(self) -> Iterator[list[VideoEmbedding]]:
        """Yield the units that `resume` has counted."""
        with self.path.open("rb") as file:
            file.seek(len(self._head()))
            left = self._next
            for _, unit in _records(file, whole=True):
                if left <= 0:
                    return
                left -= len(unit)
                yield unit

    def start(self) -> None:
        """Begin an empty one, over an older one."""
        self._next = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(self._head())
        except OSError as error:
            raise self._refused(error) from error

    def append(self, unit: Sequence[VideoEmbedding]) -> None:
        """Add one unit."""
        arrays, facts = [], []
        for one in unit:
            fact = {field.name: getattr(one, field.name) for field in fields(one)}
            for name in _ARRAYS:
                if fact[name] is not None:
                    arrays.append(fact[name])
                    fact[name] = fact[name].shape
            facts.append(fact | {"stamps": [[[s.index, s.seconds] for s in clip] for clip in one.stamps]})
        body = json.dumps([self._next, facts]).encode() + b"\n"  # in ASCII: names need not be UTF-8
        body += b"".join(array.astype("<f4").tobytes() for array in arrays)
        record = len(body).to_bytes(8, "little") + hashlib.sha256(body).digest() + body
        try:
            with self.path.open("ab") as file:
                file.write(record)
        except OSError as error:
            raise self._refused(error) from error
        self._next += len(unit)

    def _head(self) -> bytes:
        return _MAGIC + self.identity.encode() + b"\n"

    def _refused(self, error: OSError) -> ResultError:
        return ResultError(f"{self.path} cannot be used: {error.strerror or error}; name another place with --out")


def _records(file: IO[bytes], *, whole: bool) -> Iterator[tuple[int, Any]]:
    """The first row of each whole record, and its rows (`whole`) or their number; the first torn one ends them."""
    size_bytes = os.fstat(file.fileno()).st_size
    while True:
        head = file.read(40)
        length = int.from_bytes(head[:8], "little")
        if len(head) < 40 or length > size_bytes - file.tell():  # a torn one may claim more than there is memory
            return
        body = file.read(length)
        if hashlib.sha256(body).digest() != head[8:]:
            return
        line, _, numbers = body.partition(b"\n")
        first, facts = json.loads(line)
        yield first, _unit(facts, np.frombuffer(numbers, "<f4")) if whole else len(facts)


def _unit(facts: Sequence[dict[str, Any]], numbers: np.ndarray) -> list[VideoEmbedding]:
    unit, place = [], 0
    for fact in facts:
        arrays: dict[str, np.ndarray | None] = {}
        for name in _ARRAYS:
            shape = fact[name]
            size = 0 if shape is None else int(np.prod(shape))
            arrays[name] = None if shape is None else numbers[place : place + size].reshape(shape).astype(np.float32)
            place += size
        stamps = tuple(tuple(FrameStamp(index, seconds) for index, seconds in clip) for clip in fact["stamps"])
        told = {"notes": tuple(fact["notes"]), "span": tuple(fact["span"]), "stamps": stamps}
        unit.append(VideoEmbedding(**(fact | arrays | told)))
    return unit
