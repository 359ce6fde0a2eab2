"""Our losses beside open_clip's, which knows one positive a row."""

import pytest
import torch
import torch.nn.functional as F

from clipact.losses import info_nce, sigmoid


@pytest.mark.parametrize("tile", [None, 5])
@pytest.mark.parametrize("name", ["info_nce", "sigmoid"])
def test_value_and_gradients_are_open_clips(name, tile):
    from open_clip.loss import ClipLoss, SigLipLoss

    torch.manual_seed(0)
    visual, text = (F.normalize(torch.randn(12, 8, dtype=torch.float64), dim=-1) for _ in range(2))
    scale, bias = torch.tensor(14.0, dtype=torch.float64), torch.tensor(-10.0, dtype=torch.float64)

    def ours(v, t, s, b):
        loss = info_nce if name == "info_nce" else sigmoid
        return loss(v, t, scale=s, bias=b if name == "sigmoid" else None, tile=tile)

    def theirs(v, t, s, b):
        return ClipLoss()(v, t, s) if name == "info_nce" else SigLipLoss()(v, t, s, b)

    results = []
    for loss in (ours, theirs):
        leaves = [x.clone().requires_grad_() for x in (visual, text, scale, bias)]
        value = loss(*leaves)
        value.backward()
        results.append([value.detach()] + [leaf.grad for leaf in leaves if leaf.grad is not None])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
