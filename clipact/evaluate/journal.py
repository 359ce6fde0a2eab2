"""What an unfinished evaluation has found so far, on disk: whole records, appended; a torn last one is cut off.

A record is a stretch of samples, the number of its first one and the vectors found for them. Samples are encoded in the
same stretches after a resume as before the kill, so that what follows comes out bit for bit as it would have. Records
that do not follow each other (two processes wrote one file) end what is taken.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from clipact.errors import ResultError

_MAGIC = b"clipact evaluation journal 2\n"


@dataclass(frozen=True, kw_only=True)
class SampleEmbedding:
    """What was found of one sample.

    vector   unit embeddings, one after the other; None when the sample could not be read
    digest   sha256 of its file, "" when it could not be read
    cause    why it could not be read
    notes    what the decoder says a reader should know
    decoder  what decoded it
    kept     the cache's key, when this run put it there
    """

    vector: Float32[np.ndarray, " m"] | None
    digest: str = ""
    cause: str = ""
    notes: tuple[str, ...] = ()
    decoder: str = ""
    kept: str = ""


class Journal:
    """Embeddings of consecutive stretches of samples, in one file. `identity` is the hash of all that decides them."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self.identity = identity
        self._next = 0  # the number of the first sample of the record to come

    def resume(self) -> list[list[SampleEmbedding]]:
        """The stretches that are whole and follow each other; none when there is no file.

        ResultError when it is of another run. What comes after is cut off.
        """
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            self.start()
            return []
        except OSError as error:
            raise self._refused(error) from error
        head = self._head()
        if raw[: len(head)] != head:
            if len(raw) < len(head) and head.startswith(raw):  # killed before the first line was whole
                self.start()
                return []
            raise ResultError(
                f"{self.path} is the journal of another evaluation (other data, model, frames or averaging): "
                "leave out --resume to begin anew"
            )
        records = list(_records(raw, len(head)))
        end = records[-1][1] if records else len(head)
        if end < len(raw):
            try:
                os.truncate(self.path, end)
            except OSError as error:
                raise self._refused(error) from error
        self._next = sum(len(embeddings) for embeddings, _ in records)
        return [embeddings for embeddings, _ in records]

    def start(self) -> None:
        """Begin an empty one, over an older one."""
        self._next = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(self._head())
        except OSError as error:
            raise self._refused(error) from error

    def append(self, embeddings: list[SampleEmbedding]) -> None:
        """Add one stretch."""
        vectors = [one.vector for one in embeddings if one.vector is not None]
        width = len(vectors[0]) if vectors else 0
        facts = [asdict(one) | {"vector": one.vector is not None} for one in embeddings]
        body = json.dumps([self._next, width, facts], ensure_ascii=False).encode() + b"\n"
        body += b"".join(vector.astype("<f4").tobytes() for vector in vectors)
        record = len(body).to_bytes(8, "little") + hashlib.sha256(body).digest() + body
        try:
            with self.path.open("ab") as file:
                file.write(record)
        except OSError as error:
            raise self._refused(error) from error
        self._next += len(embeddings)

    def _head(self) -> bytes:
        return _MAGIC + self.identity.encode() + b"\n"

    def _refused(self, error: OSError) -> ResultError:
        return ResultError(f"{self.path} cannot be used: {error.strerror or error}; name another place with --out")


def _records(raw: bytes, start: int) -> Iterator[tuple[list[SampleEmbedding], int]]:
    """The whole records from `start` on, each with where it ends; the first that is not whole, or does not follow the
    one before, ends them."""
    following = 0
    while True:
        size = int.from_bytes(raw[start : start + 8], "little")
        body = raw[start + 40 : start + 40 + size]
        if len(raw) < start + 40 or len(body) < size or hashlib.sha256(body).digest() != raw[start + 8 : start + 40]:
            return
        start += 40 + size
        head, _, numbers = body.partition(b"\n")
        first, width, facts = json.loads(head)
        if first != following:
            return
        following += len(facts)
        vectors = iter(np.frombuffer(numbers, "<f4").reshape(-1, width or 1))
        yield [_sample_embedding(fact, vectors) for fact in facts], start


def _sample_embedding(fact: dict[str, Any], vectors: Iterator[np.ndarray]) -> SampleEmbedding:
    vector = next(vectors).astype(np.float32) if fact["vector"] else None
    return SampleEmbedding(**(fact | {"vector": vector, "notes": tuple(fact["notes"])}))
