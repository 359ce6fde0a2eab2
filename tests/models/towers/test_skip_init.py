import pytest
import torch
from torch import nn

from clipact.models.towers.tower import SkipInit

MAKERS = {
    "linear": lambda: nn.Linear(4, 4),
    "convolution": lambda: nn.Conv2d(3, 4, 3),
    "embedding": lambda: nn.Embedding(5, 4, padding_idx=0),
    "attention": lambda: nn.MultiheadAttention(4, 2),
    "lstm": lambda: nn.LSTM(4, 4),
    "truncated": lambda: nn.init.trunc_normal_(torch.empty(4)),
    "in place": lambda: torch.empty(4).normal_(),
}


@pytest.mark.parametrize("name", MAKERS)
def test_modules_are_made_and_nothing_is_drawn(name):
    state = torch.get_rng_state()
    with SkipInit():
        made = MAKERS[name]()
    assert torch.equal(torch.get_rng_state(), state)
    again = MAKERS[name]()
    assert not torch.equal(torch.get_rng_state(), state), "else the first half of this test says nothing"
    assert type(made) is type(again)


def test_numbers_that_are_asked_for_are_drawn():
    with SkipInit():
        assert torch.randn(100).std() > 0.5
