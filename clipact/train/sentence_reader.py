"""Features of sentences from a frozen text backbone, each kept in the cache by itself."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import Float32

from clipact.cache import Cache, content_key
from clipact.embed.sentences import absent_sentences, embed_sentences
from clipact.models.dual_encoder import DualEncoder, computing
from clipact.models.towers.backbone_head import hash_backbone, split_backbone_head
from clipact.models.towers.tower import TextTower
from clipact.progress import ProgressBar, no_progress
from clipact.train.frozen_features import SentenceFeatures


class SentenceReader:
    """Have sentences encoded by the backbone of a text tower.

    Args:
        encoder: The model; its text tower is used alone.
        precision: A key of PRECISIONS.
        cache: Where features are looked for and kept.
        progress: Shows how far it is.
    """

    def __init__(
        self, encoder: DualEncoder, *, precision: str, cache: Cache, progress: ProgressBar = no_progress
    ) -> None:
        self.tower, self.device = encoder.text, encoder.log_scale.device
        self.precision, self.cache, self.progress = precision, cache, progress

    @cached_property
    def key(self) -> str:
        """All that decides the features of a sentence."""
        place = f"{self.device} {self.precision}"
        return content_key("sentence features 3", hash_backbone(self.tower), _hash_tokenizer(self.tower), place)

    def read_into(self, features: SentenceFeatures, sentences: Sequence[str]) -> None:
        """Add the features of distinct sentences that are not there yet."""
        if sentences:
            rows = embed_sentences(sentences, self._encode, key=self.key, cache=self.cache, progress=self.progress)
            features.add(sentences, torch.from_numpy(rows))

    def find_absent(self, sentences: Sequence[str]) -> list[str]:
        """Return the sentences that the cache does not hold."""
        return absent_sentences(sentences, key=self.key, cache=self.cache)

    def warm_up(self, sentence: str) -> None:
        """Encode one sentence, and take the hash of the weights: the tokenizer is read from its file the first time."""
        _ = self.key
        self._encode([sentence])

    @torch.no_grad()
    def _encode(self, sentences: Sequence[str]) -> Float32[np.ndarray, "n ..."]:
        ids = self.tower.tokenize(sentences).to(self.device)
        with computing(self.precision, self.device):
            features = split_backbone_head(self.tower).body(ids)
        return features.float().cpu().numpy()


def _hash_tokenizer(tower: TextTower) -> str:
    """A hash of the tokenizer's files: the weights do not say which words the numbers stand for."""
    digest = hashlib.sha256()
    with TemporaryDirectory() as folder:
        tower.save_tokenizer(Path(folder))
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(folder)} {path.stat().st_size} ".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()
