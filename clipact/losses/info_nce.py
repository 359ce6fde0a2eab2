"""The contrastive losses, defined. All are called alike, so that a recipe names one from LOSSES.

Shared arguments:

visual, text     unit vectors; 16-bit ones are raised to 32 bits, and autocast has no say here
scale            what multiplies cosines
bias             what is added to scaled cosines, or None; it cancels in a softmax, so InfoNCE has no use for it
ids              id vectors: rows that agree in any of them are positives of each other; without ids each has itself
label_smoothing  the share of each target that is spread evenly over what could have been answered
rows             the share of these rows in the batch's loss: over slices that cover the batch, losses and gradients
                 add up to the whole. Each row still meets every row of the other side
tile             the side of a square tile: O(b d) memory, one more matrix product; None forms the logits whole
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def find_positives(ids: Sequence[Int[Tensor, " b"]]) -> Bool[Tensor, "b b"]:
    """Which rows are positives of which: those that agree in any of the id vectors. Each row is its own."""
    agree = [rearrange(vector, "b -> b 1") == rearrange(vector, "b -> 1 b") for vector in ids]
    found = agree[0]
    for more in agree[1:]:
        found = found | more
    return found


@dataclass(frozen=True)
class Partition:
    """Rows in groups; rows that are alone are left out.

    sign    +1 or -1, times the copies that were found: what membership in a group counts for
    rows    the rows that share a group, and `group` the group, 0..groups-1, of each
    """

    sign: int
    rows: Int[Tensor, " r"]
    group: Int[Tensor, " r"]
    groups: int


@dataclass(frozen=True)
class Positives:
    """The matrix of `find_positives`, never formed.

    own         what a row counts for in its own sum, from all partitions in which it is alone
    partitions  those in which some rows are not alone
    """

    own: Float[Tensor, "b 1"]
    partitions: tuple[Partition, ...]

    @classmethod
    def of(cls, ids: Sequence[Int[Tensor, " b"]]) -> "Positives":
        """Of one id vector at least; up to 2^k - 1 partitions for k vectors, one where each refines the next."""
        device, count = ids[0].device, len(ids[0])
        signs: Counter[bytes] = Counter()
        groups = [_group(vector.cpu().numpy()) for vector in ids]
        for size in range(1, len(groups) + 1):
            for some in combinations(groups, size):
                joint = reduce(lambda one, other: _group(one * count + other), some)
                signs[joint.tobytes()] += (-1) ** (size + 1)
        own, partitions = np.zeros((count, 1), dtype=np.float32), []
        for key, sign in signs.items():
            group = np.frombuffer(key, dtype=np.int64)
            alone = np.bincount(group)[group] == 1
            own[alone] += sign
            if sign and not alone.all():
                rows = np.flatnonzero(~alone)
                names, numbers = np.unique(group[rows], return_inverse=True)
                where, which = (torch.from_numpy(index).to(device) for index in (rows, numbers))
                partitions.append(Partition(sign, where, which, len(names)))
        return cls(torch.from_numpy(own).to(device), tuple(partitions))

    def sums(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """For each row, the sum of x over its positives."""
        total = x * self.own.to(x.dtype)
        for part in self.partitions:
            sums = x.new_zeros((part.groups, x.shape[1])).index_add_(0, part.group, x[part.rows])
            total.index_add_(0, part.rows, sums[part.group], alpha=part.sign)
        return total


def _group(key: np.ndarray) -> np.ndarray:
    """For each row the first row of the same key, so that equal partitions are equal arrays."""
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    return first[place]


MAX_SCALE = 100.0
"""CLIP's bound on what multiplies cosines (arXiv 2103.00020, section 2.5)."""


def info_nce(
    visual: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    *,
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""] | None = None,
    ids: Sequence[Int[Tensor, " b"]] = (),
    label_smoothing: float = 0.0,
    rows: slice = slice(None),
    tile: int | None = None,
) -> Float[Tensor, ""]:
    """The mean over both directions of the cross-entropy to each row's positives (InfoNCE, arXiv 1807.03748, eq. 4).

    The target is even over the positives, which stand outside the logarithm: L_out of SupCon (arXiv 2004.11362, eq. 2),
    here between two kinds of embeddings as in UniCL (arXiv 2204.03610). Smoothing spreads its share over all b rows.
    `bias` changes nothing and gets no gradient.
    """
    visual, text, scale, ids = _prepare(visual, text, scale, ids)
    with torch.autocast(visual.device.type, enabled=False):
        if tile is not None:
            from clipact.losses.tiled import tiled_info_nce

            return tiled_info_nce(
                visual, text, scale=scale, ids=ids, label_smoothing=label_smoothing, rows=rows, tile=tile
            )
        positive = find_positives(ids)[rows].to(visual.dtype)
        target = positive / positive.sum(1, keepdim=True)
        by_visual = scale * visual[rows] @ text.T
        by_text = by_visual.T if len(target) == len(visual) else scale * text[rows] @ visual.T
        # F.cross_entropy smooths targets that are probabilities as it does class numbers.
        losses = [
            F.cross_entropy(logits, target, label_smoothing=label_smoothing, reduction="sum")
            for logits in (by_visual, by_text)
        ]
        return (losses[0] + losses[1]) / (2 * len(visual))


def sigmoid(
    visual: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    *,
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""] | None = None,
    ids: Sequence[Int[Tensor, " b"]] = (),
    label_smoothing: float = 0.0,
    rows: slice = slice(None),
    tile: int | None = None,
) -> Float[Tensor, ""]:
    """The binary cross-entropy of "these belong together", summed over all pairs, over b (SigLIP, arXiv 2303.15343).

    Every positive pair counts as one, however many a row has. Smoothing draws each answer towards one half.
    """
    visual, text, scale, ids = _prepare(visual, text, scale, ids)
    with torch.autocast(visual.device.type, enabled=False):
        bias = torch.zeros_like(scale) if bias is None else bias.to(scale.dtype)
        if tile is not None:
            from clipact.losses.tiled import tiled_sigmoid

            return tiled_sigmoid(
                visual, text, scale=scale, bias=bias, ids=ids, label_smoothing=label_smoothing, rows=rows, tile=tile
            )
        target = find_positives(ids)[rows].to(visual.dtype) * (1 - label_smoothing) + label_smoothing / 2
        logits = scale * visual[rows] @ text.T + bias
        return F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / len(visual)


LOSSES: dict[str, Callable[..., Tensor]] = {"info_nce": info_nce, "sigmoid": sigmoid}


@torch.no_grad()
def bound_log_scale(log_scale: nn.Parameter) -> None:
    """Nothing; the parameter itself is moved back between 0 and ln 100, after an optimiser's step, as CLIP does.

    A bound inside the loss would leave no gradient to come back by.
    """
    log_scale.clamp_(0.0, math.log(MAX_SCALE))


def _prepare(
    visual: Tensor, text: Tensor, scale: Tensor, ids: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Sequence[Tensor]]:
    """All in one precision of 32 bits or more; and at least one id vector, the rows' own numbers when there is none."""
    dtype = torch.promote_types(torch.promote_types(visual.dtype, text.dtype), torch.float32)
    return visual.to(dtype), text.to(dtype), scale.to(dtype), ids or (torch.arange(len(visual), device=visual.device),)
