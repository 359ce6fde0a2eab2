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
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipact.losses.positives import find_positives
from clipact.losses.tiled import tiled_info_nce, tiled_sigmoid

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
