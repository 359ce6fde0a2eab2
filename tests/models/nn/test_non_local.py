"""Non-local blocks against the paper's formula in plain loops."""

import math

import pytest
import torch
from einops import rearrange

from clipact.models.nn.inserts import NonLocal

KINDS = ("embedded_gaussian", "gaussian", "dot_product")


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_begins_as_the_identity_and_learns(kind):
    x = torch.randn(2, 6, 2, 3, 3)
    block = NonLocal(6, pairwise=kind)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert block.proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_equals_its_formula_in_plain_loops(kind):
    torch.manual_seed(0)
    block = NonLocal(4, pairwise=kind).double()
    torch.nn.init.normal_(block.proj.weight)
    x = torch.randn(1, 4, 2, 2, 3, dtype=torch.float64)
    places = rearrange(x[0], "c t h w -> (t h w) c")
    wanted = []
    for here in places:
        related, values = [], []
        for there in places:
            pair = (here, there) if kind == "gaussian" else (block.query(here), block.key(there))
            product = sum(a * b for a, b in zip(*pair, strict=True)).item()
            related.append(product if kind == "dot_product" else math.exp(product))
            values.append(block.value(there))
        normaliser = len(places) if kind == "dot_product" else sum(related)
        y = sum(f * g for f, g in zip(related, values, strict=True)) / normaliser
        wanted.append(here + block.proj(y))
    seen = rearrange(block(x)[0], "c t h w -> (t h w) c")
    torch.testing.assert_close(seen, torch.stack(wanted), atol=1e-12, rtol=1e-12)
