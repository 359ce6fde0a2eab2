import pytest
import torch
from torch import nn

from clipact.errors import UsageError
from clipact.losses import info_nce
from clipact.training.chunks import Encoder, Pieces, cut
from clipact.training.gradcache import cached_step
from clipact.training.verify import plain_step


class _Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 5).double()

    def forward(self, clips):
        return nn.functional.normalize(self.linear(clips.mean(1)), dim=-1)


def _encoder(name):
    net = _Mean()
    return Encoder(name, net, net)


@pytest.mark.parametrize("retain", [0, 2, 9])
def test_rows_of_several_shapes_have_the_gradient_of_plain_autograd(retain):
    torch.manual_seed(0)
    visual, text = _encoder("visual"), _encoder("text")
    frames = Pieces((torch.randn(5, 1, 3).double(), torch.randn(3, 8, 3).double()))
    words = torch.randn(8, 2, 3).double()

    def loss(a, b):
        return info_nce(a, b, scale=torch.tensor(5.0).double())

    cached_step([visual, text], [frames, words], loss_fn=loss, chunk_size=2, seed=0, retain=retain)
    cached = [p.grad.clone() for e in (visual, text) for p in e.module.parameters()]
    whole = torch.cat([visual.encode(piece) for piece in frames])
    for e in (visual, text):
        e.module.zero_grad()
    expected = loss(whole, text.encode(words))
    expected.backward()
    for ours, p in zip(cached, (p for e in (visual, text) for p in e.module.parameters()), strict=True):
        torch.testing.assert_close(ours, p.grad, rtol=1e-12, atol=1e-14)
    plain = plain_step([visual, text], [frames, words], loss_fn=loss, chunk_size=2, seed=0)
    torch.testing.assert_close(plain, expected.detach(), rtol=1e-12, atol=0)


def test_pieces_are_cut_each_on_its_own():
    chunks, index = cut(_encoder("visual"), Pieces((torch.ones(5, 1), torch.ones(2, 8))), chunk_size=3, seed=0)
    assert [tuple(chunk.inputs.shape) for chunk in chunks] == [(3, 1), (2, 1), (2, 8)]
    assert index is None
    assert len({chunk.seed for chunk in chunks}) == 3
    with pytest.raises(UsageError):
        cut(_encoder("visual"), Pieces((torch.ones(5, 1), torch.ones(0, 8))), chunk_size=3, seed=0)
