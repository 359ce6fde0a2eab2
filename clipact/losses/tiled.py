"""The contrastive losses in tiles: memory for embeddings and a few tiles, never for the b x b logits.

Both losses have the form  potential(logits) - sum(target * logits).  The second part is linear in the logits, so it is
an inner product of embeddings summed over positives: O(b d). The potential (log-sum-exp both ways, or softplus) is
collected tile by tile; the backward pass makes each tile of logits again and multiplies its slope with the embeddings.
One product a tile forward and three backward, where the dense loss takes one and two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from clipact.losses.info_nce import Positives


def tiled_info_nce(
    visual: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    *,
    scale: Float[Tensor, ""],
    ids: Sequence[Int[Tensor, " b"]],
    label_smoothing: float,
    rows: slice,
    tile: int,
) -> Float[Tensor, ""]:
    """`info_nce`, in tiles."""
    weight = _row_weights(visual, rows) / 2
    positives = Positives.of(ids)
    count = rearrange(positives.sums(visual.new_ones(len(visual), 1)), "b 1 -> b")
    certain = (1 - label_smoothing) * weight / count
    terms = [_Term(positives, certain, by_row=True), _Term(positives, certain, by_row=False)]
    if label_smoothing:
        even = label_smoothing * weight / len(weight)
        terms += [_Term(_everyone(ids), even, by_row=True), _Term(_everyone(ids), even, by_row=False)]
    inside, outside = _blocks(len(weight), rows, tile)
    tiles = [*product(inside, inside + outside), *product(outside, inside)]
    bias = torch.zeros_like(scale)
    return _Tiled.apply(visual, text, scale, bias, _LogSumExp(weight), _Target(terms), tiles)


def tiled_sigmoid(
    visual: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    *,
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    ids: Sequence[Int[Tensor, " b"]],
    label_smoothing: float,
    rows: slice,
    tile: int,
) -> Float[Tensor, ""]:
    """`sigmoid`, in tiles."""
    weight = _row_weights(visual, rows)
    terms = [_Term(Positives.of(ids), (1 - label_smoothing) * weight, by_row=True)]
    if label_smoothing:
        terms += [_Term(_everyone(ids), label_smoothing / 2 * weight, by_row=True)]
    inside, outside = _blocks(len(weight), rows, tile)
    tiles = [*product(inside, inside + outside)]
    return _Tiled.apply(visual, text, scale, bias, _Softplus(weight), _Target(terms), tiles)


class _LogSumExp:
    """A potential: the sum over rows of weight * (log-sum-exp of the row + log-sum-exp of the column of that number).

    `update` takes each tile in; after the last one `value` gives the sum, and `slope` its gradient at a tile of logits.
    """

    def __init__(self, weight: Float[Tensor, " b"]) -> None:
        self.weight = weight
        self.by_row = torch.full_like(weight, -torch.inf)
        self.by_column = torch.full_like(weight, -torch.inf)

    def update(self, logits: Float[Tensor, "i j"], rows: slice, columns: slice) -> None:
        self.by_row[rows] = torch.logaddexp(self.by_row[rows], logits.logsumexp(1))
        self.by_column[columns] = torch.logaddexp(self.by_column[columns], logits.logsumexp(0))

    def value(self) -> Float[Tensor, ""]:
        counts = self.weight > 0  # the others have met a part of their row only
        return (self.weight * (self.by_row + self.by_column))[counts].sum()

    def slope(self, logits: Float[Tensor, "i j"], rows: slice, columns: slice) -> Float[Tensor, "i j"]:
        # The weight goes into the exponent: exp(-inf) where it is 0, and one pass less over the tile.
        shift_rows = self.by_row[rows] - self.weight[rows].log()
        shift_columns = self.by_column[columns] - self.weight[columns].log()
        return (logits - rearrange(shift_rows, "i -> i 1")).exp_() + (logits - shift_columns).exp_()


class _Softplus:
    """A potential: the sum over rows of weight * the sum over their logits of log(1 + exp(logit))."""

    def __init__(self, weight: Float[Tensor, " b"]) -> None:
        self.weight = weight
        self.total = torch.zeros((), dtype=torch.float64, device=weight.device)

    def update(self, logits: Float[Tensor, "i j"], rows: slice, columns: slice) -> None:
        # F.softplus turns linear at 20, which is 2e-9 off.
        self.total -= (self.weight[rows] @ F.logsigmoid(-logits).sum(1)).double()

    def value(self) -> Float[Tensor, ""]:
        return self.total.to(self.weight.dtype)

    def slope(self, logits: Float[Tensor, "i j"], rows: slice, columns: slice) -> Float[Tensor, "i j"]:
        return logits.sigmoid() * rearrange(self.weight[rows], "i -> i 1")


@dataclass(frozen=True)
class _Term:
    """A matrix that is never formed: the positives, each row (or each column) times its weight."""

    positives: Positives
    weight: Float[Tensor, " b"]
    by_row: bool

    def times(self, x: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        weight = rearrange(self.weight, "b -> b 1")
        return weight * self.positives.sums(x) if self.by_row else self.positives.sums(weight * x)


@dataclass(frozen=True)
class _Target:
    """The target of every pair, the sum of its terms."""

    terms: Sequence[_Term]

    def times(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """The matrix product with x, some features at a time: what the terms need on the way stays small."""
        made = torch.zeros_like(x)
        for part, features in zip(_columns(made), _columns(x), strict=True):
            for term in self.terms:
                part += term.times(features)
        return made

    def transposed(self) -> "_Target":
        """The target of every pair, sides exchanged."""
        return _Target([replace(term, by_row=not term.by_row) for term in self.terms])

    def total(self) -> Float[Tensor, ""]:
        """The sum over all pairs."""
        return self.times(torch.ones_like(rearrange(self.terms[0].weight, "b -> b 1"))).sum()


class _Tiled(torch.autograd.Function):
    """potential(logits) - sum(target * logits), where logits = scale * visual @ text.T + bias."""

    @staticmethod
    def forward(
        ctx: Any,
        visual: Float[Tensor, "b d"],
        text: Float[Tensor, "b d"],
        scale: Float[Tensor, ""],
        bias: Float[Tensor, ""],
        potential: _LogSumExp | _Softplus,
        target: _Target,
        tiles: list[tuple[slice, slice]],
    ) -> Float[Tensor, ""]:
        for i, j in tiles:
            potential.update(torch.addmm(bias, scale * visual[i], text[j].T), i, j)
        wanted = target.times(text)
        ctx.save_for_backward(visual, text, scale, bias, wanted)
        ctx.potential, ctx.target, ctx.tiles = potential, target, tiles
        return potential.value() - scale * (visual * wanted).sum() - bias * target.total()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, ""]) -> tuple[Tensor | None, ...]:
        visual, text, scale, bias, wanted = ctx.saved_tensors
        by_visual, by_text = -wanted, -ctx.target.transposed().times(visual)
        slopes = torch.zeros_like(bias, dtype=torch.float64)
        with torch.autocast(visual.device.type, enabled=False):  # the caller's may still be in force
            for i, j in ctx.tiles:
                slope = ctx.potential.slope(torch.addmm(bias, scale * visual[i], text[j].T), i, j)
                by_visual[i] += slope @ text[j]
                by_text[j] += slope.T @ visual[i]
                slopes += slope.sum()
        # Scale multiplies cosines, and so does each embedding: their gradients are one sum.
        by_scale = (visual * by_visual).sum()
        by_bias = slopes.to(bias.dtype) - ctx.target.total()
        by_visual *= grad * scale
        by_text *= grad * scale
        return by_visual, by_text, grad * by_scale, grad * by_bias, None, None, None


def _columns(x: Float[Tensor, "b d"]) -> Sequence[Float[Tensor, "b c"]]:
    return torch.split(x, max(1, 2**22 // len(x)), dim=1)


def _row_weights(visual: Float[Tensor, "b d"], rows: slice) -> Float[Tensor, " b"]:
    """1/b for the rows that count, 0 for the others."""
    weight = visual.new_zeros(len(visual))
    weight[rows] = 1 / len(visual)
    return weight


def _everyone(ids: Sequence[Int[Tensor, " b"]]) -> Positives:
    return Positives.of([torch.zeros_like(ids[0])])


def _blocks(total: int, rows: slice, tile: int) -> tuple[list[slice], list[slice]]:
    """Blocks of `tile` at most that cover the rows that count, and blocks that cover the others."""
    start, stop, _ = rows.indices(total)

    def cover(first: int, end: int) -> list[slice]:
        return [slice(block, min(block + tile, end)) for block in range(first, end, tile)]

    return cover(start, stop), cover(0, start) + cover(stop, total)
