"""Validation during training: retrieval on captions, zero-shot recognition on labels.

These metrics choose the best step and show a trend; `clipact eval` is what evaluates a finished model.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipact.data.sources import TrainingExample
from clipact.errors import DataError
from clipact.metrics import match_captions, recall, top_k
from clipact.models.dual_encoder import unit
from clipact.train.encoded_batches import EncodedBatches

_KS, _TOPS = (1, 5, 10), (1, 5)
_WAYS = ("text_to_visual", "visual_to_text")


def metric_names(labels: int) -> tuple[str, ...]:
    """Return the names of the metrics of a set: of recognition among so many labels, of retrieval where it has none.

    Top-5 of five labels or fewer would always be 1: it is left out.
    """
    if labels:
        return tuple(f"top_{k}" for k in _TOPS if k == 1 or labels > k)
    return tuple(f"{way}_recall_{k}" for way in _WAYS for k in _KS)


@torch.no_grad()
def validate(encoded: EncodedBatches, label_sentences: Mapping[int, Sequence[str]]) -> dict[str, float]:
    """Return the metrics of one set, 0..1: recall at 1, 5 and 10 both ways, or top-1 and top-5.

    Args:
        encoded: The examples.
        label_sentences: The sentences of each label that is chosen from, by its label_id; empty for captions.

    Raises:
        DataError: Not one file could be read, or more than are allowed could not.
    """
    visual_ids, clips = encoded.embed_clips()
    if not visual_ids:
        raise DataError("none of the files to evaluate on could be read; `clipact data check` says why")
    place = {visual_id: row for row, visual_id in enumerate(visual_ids)}
    examples = [example for example in encoded.examples if example.visual_id in place]
    rows = torch.tensor([place[example.visual_id] for example in examples])
    if not label_sentences:
        return _retrieval(encoded, examples, clips[rows])
    return _recognition(encoded, examples, clips[rows], label_sentences)


def _retrieval(
    encoded: EncodedBatches, examples: Sequence[TrainingExample], clips: Float[Tensor, "n d"]
) -> dict[str, float]:
    sentences = [(sentence, number) for number, example in enumerate(examples) for sentence in example.sentences]
    scores = (encoded.embed_all([sentence for sentence, _ in sentences]) @ clips.T).cpu().numpy()
    visual_of = np.array([number for _, number in sentences])
    visuals_of_text, texts_of_visual = match_captions([sentence for sentence, _ in sentences], visual_of, len(examples))
    found = (recall(scores, visuals_of_text, ks=_KS), recall(scores.T, texts_of_visual, ks=_KS))
    return {f"{way}_recall_{k}": share for way, shares in zip(_WAYS, found, strict=True) for k, share in shares.items()}


def _recognition(
    encoded: EncodedBatches,
    examples: Sequence[TrainingExample],
    clips: Float[Tensor, "n d"],
    label_sentences: Mapping[int, Sequence[str]],
) -> dict[str, float]:
    number = {label_id: i for i, label_id in enumerate(label_sentences)}
    pairs = [(sentence, number[label_id]) for label_id, sentences in label_sentences.items() for sentence in sentences]
    labels = unit(_sums(encoded.embed_all([sentence for sentence, _ in pairs]), torch.tensor([i for _, i in pairs])))
    truth = np.array([number[example.label_id] for example in examples if example.label_id is not None])
    scores = (clips @ labels.T).cpu().numpy()
    return {name: top_k(scores, truth, k=int(name.removeprefix("top_"))) for name in metric_names(len(number))}


def _sums(rows: Float[Tensor, "m d"], groups: Int[Tensor, " m"]) -> Float[Tensor, "n d"]:
    return rows.new_zeros((int(groups.max()) + 1, rows.shape[1])).index_add_(0, groups, rows)
