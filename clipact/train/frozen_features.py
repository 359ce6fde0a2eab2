"""Features of frozen backbones, in memory: what steps and validations take them from."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clipact.train.drawn_inputs import ClipKey


class VisualFeatures:
    """Features of clips; those of one shape (frames of a clip, clips of a file) lie in one tensor."""

    def __init__(self) -> None:
        self._groups: dict[tuple[int, int], Float[Tensor, "n k ..."]] = {}
        self._rows: dict[ClipKey, int] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def add(self, keys: Sequence[ClipKey], features: Float[Tensor, "n k ..."]) -> None:
        """Take in a row for each of some keys of one shape."""
        before = self._groups.get(keys[0].shape)
        self._rows |= {key: row for row, key in enumerate(keys, 0 if before is None else len(before))}
        self._groups[keys[0].shape] = features if before is None else torch.cat([before, features])

    def of(self, keys: Sequence[ClipKey]) -> Float[Tensor, "m ..."]:
        """Return the features of each clip of some keys of one shape, a key's own clips one after the other."""
        return self._groups[keys[0].shape][[self._rows[key] for key in keys]].flatten(0, 1)

    @property
    def total_bytes(self) -> int:
        """What they take in memory."""
        return sum(features.nbytes for features in self._groups.values())


class SentenceFeatures:
    """Features of sentences."""

    def __init__(self) -> None:
        self._features: Float[Tensor, "n ..."] | None = None
        self._rows: dict[str, int] = {}

    def __contains__(self, sentence: object) -> bool:
        return sentence in self._rows

    def add(self, sentences: Sequence[str], features: Float[Tensor, "n ..."]) -> None:
        """Take in a row for each of some sentences."""
        self._rows |= {sentence: row for row, sentence in enumerate(sentences, len(self._rows))}
        self._features = features if self._features is None else torch.cat([self._features, features])

    def of(self, sentences: Sequence[str]) -> Float[Tensor, "m ..."]:
        """Return a row a sentence."""
        assert self._features is not None
        return self._features[[self._rows[sentence] for sentence in sentences]]

    @property
    def total_bytes(self) -> int:
        """What they take in memory."""
        return 0 if self._features is None else self._features.nbytes
