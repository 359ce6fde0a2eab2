import pytest
import torch
from torch import nn

from clipact.errors import UsageError
from clipact.losses import info_nce
from clipact.train.chunks import Encoder, RaggedRows, RepeatedRows, split_chunks
from clipact.train.gradcache import cached_step
from clipact.train.verify_gradient import plain_step


class _Mean(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.dropout, self.rows = nn.Dropout(dropout), 0
        self.linear = nn.Linear(3, 5).double()

    def forward(self, clips):
        self.rows += len(clips)
        return nn.functional.normalize(self.linear(self.dropout(clips.mean(1))), dim=-1)


def _encoder(name, *, dropout=0.0):
    net = _Mean(dropout)
    return Encoder(name, net, net)


@pytest.mark.parametrize("retain", [0, 2, 9])
def test_rows_of_several_shapes_have_the_gradient_of_plain_autograd(retain):
    torch.manual_seed(0)
    visual, text = _encoder("visual"), _encoder("text")
    frames = RaggedRows((torch.randn(5, 1, 3).double(), torch.randn(3, 8, 3).double()))
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
    chunks, index = split_chunks(
        _encoder("visual"), RaggedRows((torch.ones(5, 1), torch.ones(2, 8))), chunk_size=3, seed=0
    )
    assert [tuple(chunk.inputs.shape) for chunk in chunks] == [(3, 1), (2, 1), (2, 8)]
    assert index is None
    assert len({chunk.seed for chunk in chunks}) == 3
    with pytest.raises(UsageError):
        split_chunks(_encoder("visual"), RaggedRows((torch.ones(5, 1), torch.ones(0, 8))), chunk_size=3, seed=0)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("retain", [0, 2, 9])
def test_repeated_rows_are_encoded_once_and_have_the_gradient_of_all_pairs(retain, dropout):
    torch.manual_seed(0)
    visual, text = _encoder("visual", dropout=dropout), _encoder("text", dropout=dropout)
    frames = RaggedRows((torch.randn(5, 1, 3).double(), torch.randn(3, 8, 3).double()))
    times = (1, 3, 2, 1, 1, 4, 1, 2)
    words = torch.randn(sum(times), 2, 3).double()
    owners = torch.arange(8).repeat_interleave(torch.tensor(times))
    options = {"chunk_size": 2, "seed": 0}

    def loss(a, b):
        return info_nce(a, b, scale=torch.tensor(5.0).double(), ids=[owners])

    def gradients():
        found = [p.grad.clone() for e in (visual, text) for p in e.module.parameters()]
        for e in (visual, text):
            e.module.zero_grad()
        return found

    inputs = [RepeatedRows(frames, times), words]
    seen = cached_step([visual, text], inputs, loss_fn=loss, retain=retain, **options)
    assert visual.module.rows == 8 + max(0, 8 - 2 * retain + (retain == 2)), "in five chunks, one of a single row"
    ours = [(seen, gradients()), (plain_step([visual, text], inputs, loss_fn=loss, **options), gradients())]
    said = torch.cat([chunk.embed() for chunk in split_chunks(text, words, place=1, **options)[0]])
    if dropout:  # a clip drops out the same numbers in all its pairs
        shown = torch.cat([chunk.embed() for chunk in split_chunks(visual, frames, **options)[0]])[owners]
    else:
        clips = [clip for piece in frames for clip in piece]
        shown = torch.cat([visual.encode(clips[row][None]) for row in owners])
    expected = loss(shown, said)
    expected.backward()
    true = gradients()
    for value, found in ours:
        torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=0)
        for one, other in zip(found, true, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_rows_that_all_stand_once_need_no_index():
    rows = torch.ones(3, 1)
    assert split_chunks(_encoder("visual"), RepeatedRows(rows, (1, 1, 1)), chunk_size=2, seed=0)[1] is None
    assert split_chunks(_encoder("visual"), RepeatedRows(rows, (2, 1, 1)), chunk_size=2, seed=0)[1] == [0, 0, 1, 2]
