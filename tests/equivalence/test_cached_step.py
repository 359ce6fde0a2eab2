"""All together beside one plain backward: chunks, distinct sentences, kept graphs and tiles, on a DualEncoder."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from clipact.losses import LOSSES
from clipact.models.dual_encoder import DualEncoder
from clipact.train.chunks import Encoder
from clipact.train.gradcache import cached_step
from clipact.train.verify_gradient import plain_step
from tests.tiny import TinyText, TinyVisual

SENTENCES = ["run", "a dog jumps", "run", "she waves", "he sits", "run", "a dog jumps", "swim", "eat"]


@pytest.mark.parametrize("retain", [(0, 0), (1, 2), (9, 9)])
@pytest.mark.parametrize("name", LOSSES)
def test_a_cached_step_in_tiles_is_a_plain_backward(name, retain):
    torch.manual_seed(0)
    model = DualEncoder(TinyVisual(), TinyText(), bias=-2.0 if name == "sigmoid" else None).double()
    video = torch.rand(len(SENTENCES), 4, 3, 8, 8, dtype=torch.float64)
    ids = [torch.tensor([0, 0, 1, 2, 3, 4, 5, 6, 7]), torch.tensor([0, 1, 0, 2, 3, 0, 1, 4, 5])]

    def loss_fn(visual, text, tile=None):
        return LOSSES[name](visual, text, scale=model.scale, bias=model.bias, ids=ids, label_smoothing=0.1, tile=tile)

    plain = loss_fn(model.encode_video(video), model.encode_text(SENTENCES))
    plain.backward()
    wanted = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
    model.zero_grad()
    seen = cached_step(
        [Encoder("video", model.visual, model.encode_video), Encoder("text", model.text, model.encode_text)],
        [video, SENTENCES],
        loss_fn=lambda visual, text: loss_fn(visual, text, tile=4),
        chunk_size=2,
        seed=0,
        retain=retain,
    )
    torch.testing.assert_close(seen, plain.detach(), rtol=1e-12, atol=0)
    assert {"log_scale", "visual.linear.weight", "text.embedding.weight"} <= wanted.keys()
    for key, parameter in model.named_parameters():
        assert (parameter.grad - wanted[key]).norm() <= 1e-12 * wanted[key].norm(), key


class Tower(nn.Module):
    """Rows of numbers, or sentences by their bytes; dropout in the middle."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 8), nn.GELU(), nn.Dropout(dropout), nn.Linear(8, 5)).double()

    def forward(self, rows):
        if isinstance(rows, list):
            rows = torch.tensor([list(row.encode().ljust(12)[:12]) for row in rows], dtype=torch.float64) / 64 - 1
        return F.normalize(self.layers(rows), dim=-1)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(LOSSES)),
    rows=st.integers(2, 17),
    chunk_size=st.integers(1, 18),
    kept=st.sampled_from([(0, 0), (1, 1), (2, 2), (99, 99), (0, 2)]),
    dropout=st.sampled_from([0.0, 0.4]),
    tied=st.booleans(),
    sentences=st.booleans(),
    groups=st.lists(st.integers(1, 12), max_size=3),
    smoothing=st.sampled_from([0.0, 0.2]),
    tile=st.sampled_from([None, 3]),
)
def test_every_case_at_once_is_plain_autograd(
    name, rows, chunk_size, kept, dropout, tied, sentences, groups, smoothing, tile
):
    """Dropout, uneven chunks, tied towers, sentences said twice, several positives, both losses, kept graphs."""
    torch.manual_seed(0)
    towers = [Tower(dropout) for _ in range(1 if tied else 2)]
    encoders = [Encoder("video", towers[0], towers[0]), Encoder("text", towers[-1], towers[-1])]
    numbers = torch.randn(rows, 12, dtype=torch.float64)
    said = [SENTENCES[i] for i in torch.randint(0, len(SENTENCES), (rows,))]
    inputs = [numbers, said if sentences else numbers.flip(0)]
    ids = [torch.randint(0, number, (rows,)) for number in groups]
    learnt = {"scale": torch.tensor(2.0), "bias": torch.tensor(-1.0)}
    learnt = {key: value.double().requires_grad_() for key, value in learnt.items()}

    def gradients(step, rows_at_once, **options):
        leaves = [*learnt.values(), *(p for tower in towers for p in tower.parameters())]
        for leaf in leaves:
            leaf.grad = None
        tile_or_not = options.pop("tile", None)

        def loss_fn(visual, text):
            scale = learnt["scale"].exp()
            options = {"bias": learnt["bias"], "ids": ids, "label_smoothing": smoothing, "tile": tile_or_not}
            return LOSSES[name](visual, text, scale=scale, **options)

        value = step(encoders, inputs, loss_fn=loss_fn, chunk_size=rows_at_once, seed=5, **options)
        return [value, *(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.clone() for leaf in leaves)]

    cached = gradients(cached_step, chunk_size, retain=kept, tile=tile)
    wanted = [gradients(plain_step, chunk_size)]
    if dropout == 0:
        wanted.append(gradients(plain_step, rows))  # the whole batch at once
    size = max(float(x.norm()) for x in wanted[0][1:])
    for plain in wanted:
        for seen, true in zip(cached, plain, strict=True):
            assert (seen - true).norm() <= 1e-12 * max(float(true.norm()), size)
