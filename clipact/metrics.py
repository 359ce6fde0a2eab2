"""How good answers are: pure functions of scores and of what is true. Nothing is read and nothing printed.

Ties count against: what scores as high as the right answer is taken to stand before it, so that a model which gives
every pair the same score is right by no accident of sorting.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def top_k(scores: Float[Tensor, "b n"], label_ids: Int[Tensor, " b"], *, k: int) -> float:
    """The share of rows whose own label is among the k that score highest, 0..1."""
    right = scores.gather(1, label_ids[:, None])
    ahead = (scores >= right).sum(1) - 1
    return (ahead < k).double().mean().item()


def recall(
    scores: Float[Tensor, "q n"], query_ids: Int[Tensor, " q"], item_ids: Int[Tensor, " n"], *, ks: Sequence[int]
) -> dict[int, float]:
    """For each k the share of queries with an item of the same id among the k that score highest, 0..1.

    What is asked of Flickr8k's retrieval: one right picture for a caption, and any of five captions for a picture.
    A query whose id no item has counts as missed.
    """
    ranks = best_ranks(scores, query_ids, item_ids)
    return {k: (ranks < min(k, scores.shape[1])).double().mean().item() for k in ks}


def best_ranks(
    scores: Float[Tensor, "q n"], query_ids: Int[Tensor, " q"], item_ids: Int[Tensor, " n"]
) -> Int[Tensor, " q"]:
    """How many wrong items stand before the best right one, for each query; n when there is no right one."""
    right = query_ids[:, None] == item_ids
    best = scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
    ahead = ((scores >= best) & ~right).sum(1)
    return torch.where(right.any(1), ahead, scores.shape[1])
