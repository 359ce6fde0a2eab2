"""Features of clips in the cache, under one kind of key: the same backbone on the same clips is computed once.

The key holds the file's bytes, the part of it, the frames, what decodes, and the weights: whichever command asked.
"""

import json
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import av
import numpy as np
import PIL

from clipact import aliases
from clipact.cache import Cache, content_key
from clipact.clip_spec import FrameStamp
from clipact.embed.clip_source import ClipSource
from clipact.embed.feature_collector import Features
from clipact.engines.clip_encoder import ClipEncoder
from clipact.errors import CacheError
from clipact.video.augment import Augment
from clipact.video.collect import ClipLedger

DECODERS = f"pyav {av.__version__}, pillow {PIL.__version__}"


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipFeatures:
    """What a visual backbone makes of the clips of one row, and the ledger of each clip."""

    features: Features
    ledgers: tuple[ClipLedger, ...]


class FeatureCache:
    """The features of an encoder's clips, on disk; with no cache nothing is found and nothing kept."""

    def __init__(self, cache: Cache | None, encoder: ClipEncoder, *, augment: Augment | None = None) -> None:
        self.cache, self.encoder, self.augment = cache, encoder, augment
        self.kind = "frames" if encoder.by_frame else "clips"
        self._weights = ""
        self._lock = threading.Lock()
        self._warned = False

    def key(self, row: ClipSource, digest: str) -> str:
        """Return the key of a row whose file has this sha256; "" where nothing is kept."""
        if self.cache is None or not digest:
            return ""
        with self._lock:
            self._weights = self._weights or self.encoder.key()
        encoder = self.encoder
        seen = (
            self._weights,
            digest,
            repr(row.span),
            aliases.cache_text(repr(asdict(encoder.spec))),
            f"{encoder.clips} x {encoder.crops}",
            encoder.decoder,
            DECODERS,
        )
        drawn = () if self.augment is None else (repr(self.augment), str(row.draw))
        return content_key(f"{self.kind} 3", *seen, *drawn)

    def read(self, key: str, *, name: str) -> ClipFeatures | None:
        """Return what is kept under a key, None when nothing is; `name` is what ledgers call the source."""
        if self.cache is None or not key or (entry := self.cache.read(self.kind, key)) is None:
            return None
        features = Features(values=entry["values"], places=entry.get("places"))
        if len(features) != self.encoder.clips_a_video:
            return None
        facts = json.loads(entry["facts"].tobytes())
        return ClipFeatures(features=features, ledgers=tuple(_ledger(fact, name) for fact in facts))

    def write(self, key: str, found: ClipFeatures) -> None:
        """Keep features; a cache that cannot be written is said once, and costs time later, not the answer."""
        if self.cache is None or not key:
            return
        arrays: dict[str, np.ndarray] = {"values": found.features.values}
        if found.features.places is not None:
            arrays["places"] = found.features.places
        facts = json.dumps([_fact(one) for one in found.ledgers], ensure_ascii=False).encode()
        arrays["facts"] = np.frombuffer(facts, np.uint8)
        try:
            self.cache.write(self.kind, key, arrays)
        except CacheError as error:
            with self._lock:
                warned, self._warned = self._warned, True
            if not warned:
                warnings.warn(str(error), stacklevel=2)

    @contextmanager
    def claim(self, keys: Sequence[str], *, stopping: threading.Event | None = None) -> Iterator[None]:
        """Inside, no other thread or process that asks for these keys computes them: it waits, then reads them.

        Where `stopping` is set while this one waits, it waits no longer.
        """
        own = [key for key in keys if key]
        if self.cache is None or not own:
            yield
            return
        with self.cache.claim_all(self.kind, own, stopping=stopping):
            yield


def _fact(ledger: ClipLedger) -> dict[str, object]:
    return {
        "decoder": ledger.decoder,
        "notes": ledger.notes,
        "duration_seconds": ledger.duration_seconds,
        "stamps": [[stamp.index, stamp.seconds] for stamp in ledger.stamps],
    }


def _ledger(fact: dict[str, object], name: str) -> ClipLedger:
    stamps, notes = fact["stamps"], fact["notes"]
    assert isinstance(stamps, list)
    assert isinstance(notes, list)
    return ClipLedger(
        source=name,
        decoder=str(fact["decoder"]),
        notes=tuple(notes),
        duration_seconds=fact["duration_seconds"],  # type: ignore[arg-type]
        stamps=tuple(FrameStamp(index, seconds) for index, seconds in stamps),
    )
