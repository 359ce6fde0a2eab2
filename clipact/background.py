"""One's labels and the background words that they are weighed against, as vectors.

The shipped words are encoded once for a model and its prompts, whatever the labels are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool

from clipact import zoo
from clipact.calibration import background_words, near, unlike
from clipact.classifier import embed_labels
from clipact.dual_encoder import Watch, unit
from clipact.errors import CalibrationError, UsageError
from clipact.label_vectors import LabelVectors
from clipact.prompts import LabelSet, PromptSet
from clipact.store import Store


@dataclass(frozen=True, kw_only=True, eq=False)
class Background:
    """Background words, and which of them mean what which labels mean."""

    words: tuple[str, ...]
    near: Bool[np.ndarray, "b l"]

    @property
    def far(self) -> tuple[str, ...]:
        """The words that mean what no label means."""
        return tuple(word for word, row in zip(self.words, self.near, strict=True) if not row.any())


def choose_background(
    model: zoo.Model, labels: LabelSet, prompts: PromptSet, *, store: Store, watch: Watch = iter
) -> Background:
    """The shipped words that are no label, by the vectors of their sentences.

    ModelError for a model whose texts depend on the video, UsageError for one without words, CalibrationError when the
    labels are so many that no word is left to weigh them against.
    """
    if model.labels:
        raise UsageError(f"{model.name} knows its own labels alone: it has no words to weigh them against")
    if model.encoder.text_depends_on_video:
        raise model.encoder.text_needs_video()
    words, count = unlike(background_words(), labels), len(labels)
    both = weigh(model, labels, words, prompts, store=store, watch=watch)
    vectors = unit(both.rows.float().mean(0)).cpu().numpy()
    owner = both.owner.cpu().numpy()
    meant = np.zeros((len(words), count), dtype=bool)
    if len(words) > 1:
        rows, columns = np.nonzero(near(vectors[owner >= count], vectors[owner < count]))
        meant[owner[owner >= count][rows] - count, owner[owner < count][columns]] = True
    found = Background(words=words, near=meant)
    if len(words) < 2 or not found.far:
        raise CalibrationError(
            f"the {count:,} labels leave none of the background words to weigh them against: fewer labels do"
        )
    return found


@torch.inference_mode()
def weigh(
    model: zoo.Model,
    labels: LabelSet,
    background: Sequence[str],
    prompts: PromptSet,
    *,
    store: Store,
    watch: Watch = iter,
) -> LabelVectors:
    """What clips are compared with: the labels' vectors, and after them the background words'."""
    own = embed_labels(model, labels, prompts, store=store, watch=watch)
    if not background:
        return own
    shipped = background_words()
    known = shipped if set(background) <= set(shipped) else tuple(background)
    others = LabelSet.of(known, phrases=known, name="background")
    vectors = embed_labels(model, others, prompts, store=store, watch=watch)
    return own.beside(vectors.only([known.index(word) for word in background]))
