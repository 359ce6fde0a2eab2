"""Recognizers that compare clip embeddings with labels, as an evaluation sees them.

Their embeddings are encoded in batches over files, cached, and compared afterwards. Any other `Recognizer` is asked
file by file.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from clipact.classify.base import Recognizer
from clipact.clip_spec import Averaging, ClipSpec
from clipact.engines.engine import Engine


@dataclass(frozen=True, kw_only=True)
class RecognizerFacts:
    """Describe a recognizer for the record of an evaluation.

    Args:
        model: Whose embeddings it uses; None where it has none.
        prompts: What a result says of the words, as JSON has it; None where there are none.
        supervision: How labels were learnt from examples, where they were by more than the model; else "".
        files_seen: The sha256 of the files that it learnt from, besides those of the model.
    """

    model: Engine | None = None
    prompts: dict[str, Any] | None = None
    supervision: str = ""
    files_seen: frozenset[str] = frozenset()


@runtime_checkable
class HasFacts(Protocol):
    """Describe itself for the record of an evaluation."""

    def facts(self) -> RecognizerFacts:
        """Return the facts."""


@runtime_checkable
class EmbeddingRecognizer(Recognizer, HasFacts, Protocol):
    """Compare embeddings of clips with labels; satisfied by zero-shot, supervised and probe classifiers.

    The attributes say which embeddings: of `clips` views a video, prepared as `spec` says. `averagings` are those over
    the views that it can do; "embeddings" is always one.
    """

    model: Engine
    spec: ClipSpec
    clips: int
    decoder: str
    averagings: tuple[Averaging, ...]

    def adapt(self, embeddings: Float32[np.ndarray, "n k d"]) -> "EmbeddingRecognizer":
        """Return the recognizer with what it estimates from unlabelled embeddings, k views a video."""

    def score(self, embeddings: Float32[np.ndarray, "n k d"], *, averaging: Averaging) -> Float32[np.ndarray, "n l"]:
        """Return the logits of n videos for each label, averaged over their k views.

        Args:
            embeddings: Unit vectors of the views; of their mean, k = 1, where embeddings were averaged before.
            averaging: One of `averagings`.
        """
