"""Embeddings of sentences from the cache, each kept by itself: a wording or a label more costs its own sentences alone.

Up to 256 sentences lie together in a pack: an entry of their rows and hashes, and one of the hashes alone, which is all
that is read of a pack that holds nothing wanted. A pack is written as soon as it is encoded, so that a stop loses one
batch at most. An entry that is damaged or was evicted counts as absent.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

import numpy as np
from jaxtyping import Float32

from clipact.cache import Cache, content_key
from clipact.engines.engine import Engine
from clipact.errors import CacheError
from clipact.progress import ProgressBar, no_progress

NAMES, ROWS = "sentence_names", "sentences"
"""The kinds of entries in the cache."""

PACK_SENTENCES = 256
_HASH_BYTES = 16
_PREFIX_DIGITS = 16  # of a pack's key: by these the packs of one model are told from those of others

EncodeSentences = Callable[[Sequence[str]], Float32[np.ndarray, "n ..."]]
"""Gives a row of any shape for each sentence, each as if it were alone."""


def embed_sentences(
    sentences: Sequence[str],
    encode: EncodeSentences,
    *,
    key: str,
    cache: Cache,
    progress: ProgressBar = no_progress,
) -> Float32[np.ndarray, "n ..."]:
    """Return the rows of sentences in their order, encoding only those that the cache does not hold.

    A cache that cannot be written is a warning, once, and costs time only.

    Args:
        sentences: A repeated one is encoded once.
        encode: Is given 256 sentences of like length at a time, so that little is spent on padding.
        key: A `content_key` of all that decides a row besides its sentence: the weights, what is done with them.
        cache: Where rows are kept.
        progress: Shows the batches that are encoded.
    """
    place = {sentence: number for number, sentence in enumerate(dict.fromkeys(sentences))}
    if not place:
        return encode([])
    packs = _SentencePacks(cache, key)
    rows = _Rows(len(place))
    packs.read_into(rows, {_hash(sentence): number for sentence, number in place.items()})
    absent = sorted((one for one, number in place.items() if not rows.filled[number]), key=len)
    batches = [absent[start : start + PACK_SENTENCES] for start in range(0, len(absent), PACK_SENTENCES)]
    for batch in progress(batches, len(batches), "encoding sentences") if batches else ():
        encoded = encode(batch)
        rows.put([place[sentence] for sentence in batch], encoded)
        packs.write([_hash(sentence) for sentence in batch], encoded)
    if len(place) == len(sentences):
        return rows.values
    return rows.values[[place[sentence] for sentence in sentences]]


def absent_sentences(sentences: Sequence[str], *, key: str, cache: Cache) -> list[str]:
    """Return the distinct sentences that the cache holds no rows of under the key; nothing is encoded."""
    absent = {_hash(sentence): sentence for sentence in dict.fromkeys(sentences)}
    for name in _SentencePacks(cache, key).names():
        absent.pop(name, None)
    return list(absent.values())


def sentence_embedder(model: Engine, *, cache: Cache, progress: ProgressBar = no_progress) -> EncodeSentences:
    """Return what gives sentences their unit vectors under a model, from the cache where it holds them."""

    def encode(sentences: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        key = content_key("sentence embeddings 1", model.key)
        return embed_sentences(sentences, model.encode_text, key=key, cache=cache, progress=progress)

    return encode


class _Rows:
    """Rows that come a few at a time; the first ones decide the shape."""

    def __init__(self, count: int) -> None:
        self.values: Float32[np.ndarray, "n ..."] = np.empty((count, 0), np.float32)
        self.filled = np.zeros(count, dtype=bool)

    def put(self, places: Sequence[int], rows: Float32[np.ndarray, "n ..."]) -> None:
        if not self.filled.any():
            self.values = np.empty((len(self.filled), *rows.shape[1:]), np.float32)
        self.values[places] = rows
        self.filled[places] = True


class _SentencePacks:
    """The packs of one key in the cache.

    A pack that is not full grows under its own key, one process after the other: a label a day makes a dozen packs a
    year. Rows are told by the hashes beside them, so that none is taken for another's, whichever entry is older.
    """

    def __init__(self, cache: Cache, key: str) -> None:
        self._cache, self._prefix = cache, key[:_PREFIX_DIGITS]
        self._growing: dict[str, int] = {}
        self._writes = True

    def read_into(self, rows: _Rows, wanted: dict[bytes, int]) -> None:
        """Fill in the rows of the wanted hashes that the cache holds; the numbers are their places."""
        wanted = dict(wanted)
        packs = sorted(pack for pack in self._cache.keys(NAMES) if pack.startswith(self._prefix))
        for pack in packs:
            names = _hashes(self._cache.read(NAMES, pack))
            if 0 < len(names) < PACK_SENTENCES:
                self._growing[pack] = len(names)
            if not wanted.keys().isdisjoint(names):
                found, values = self._read(pack)
                pairs = [(wanted.pop(name), row) for row, name in enumerate(found) if name in wanted]
                if pairs:
                    rows.put([place for place, _ in pairs], values[[row for _, row in pairs]])
            if not wanted:
                break

    def names(self) -> Iterator[bytes]:
        """Yield the hashes of all sentences in the packs."""
        for pack in self._cache.keys(NAMES):
            if pack.startswith(self._prefix):
                yield from _hashes(self._cache.read(NAMES, pack))

    def write(self, names: list[bytes], rows: Float32[np.ndarray, "n ..."]) -> None:
        """Keep the rows of these hashes, in a pack that has room for them or in a new one."""
        if not self._writes:
            return
        try:
            if not self._grow(names, rows):
                self._replace(self._prefix + content_key(*names)[_PREFIX_DIGITS:], names, rows)
        except CacheError as error:
            warnings.warn(str(error), stacklevel=2)
            self._writes = False

    def _grow(self, names: list[bytes], rows: Float32[np.ndarray, "n ..."]) -> bool:
        """Add to the fullest pack that has room; False where there is none."""
        room = PACK_SENTENCES - len(names)
        fitting = [pack for pack, count in self._growing.items() if count <= room]
        for pack in sorted(fitting, key=lambda pack: -self._growing[pack]):
            with self._cache.claim(ROWS, pack):
                before, kept = self._read(pack)
                if 0 < len(before) <= room and kept.shape[1:] == rows.shape[1:]:
                    self._replace(pack, before + names, np.concatenate([kept, rows]))
                    return True
        return False

    def _replace(self, pack: str, names: list[bytes], rows: Float32[np.ndarray, "n ..."]) -> None:
        hashes = np.frombuffer(b"".join(names), np.uint8).reshape(-1, _HASH_BYTES)
        self._cache.write(ROWS, pack, {"names": hashes, "rows": rows})
        self._cache.write(NAMES, pack, {"names": hashes})

    def _read(self, pack: str) -> tuple[list[bytes], Float32[np.ndarray, "n ..."]]:
        """Return the hashes in a pack and their rows; none where it is absent or damaged."""
        entry = self._cache.read(ROWS, pack)
        names, rows = _hashes(entry), np.empty(0, np.float32) if entry is None else entry.get("rows")
        if rows is None or rows.dtype != np.float32 or rows.shape[:1] != (len(names),):
            return [], np.empty(0, np.float32)
        return names, rows


def _hash(sentence: str) -> bytes:
    return blake2b(sentence.encode(), digest_size=_HASH_BYTES).digest()


def _hashes(entry: dict[str, np.ndarray] | None) -> list[bytes]:
    """The hashes in an entry; none where it is absent or of another form."""
    names = None if entry is None else entry.get("names")
    if names is None or names.dtype != np.uint8 or names.shape[1:] != (_HASH_BYTES,):
        return []
    raw = names.tobytes()
    return [raw[start : start + _HASH_BYTES] for start in range(0, len(raw), _HASH_BYTES)]
