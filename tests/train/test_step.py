import math
from dataclasses import replace

import pytest
import torch

from clipact.cache import Cache
from clipact.data.sources import read_sources
from clipact.errors import TrainingError
from clipact.losses import info_nce
from clipact.models.checkpoint import load_checkpoint
from clipact.train.contrastive import take_step
from clipact.train.encoded_batches import EncodedBatches
from tests.train.small_run import small_recipe


@pytest.fixture
def parts(small, drawn, tmp_path, request):
    encoder = load_checkpoint(small)  # in evaluation mode: no dropout, so that plain autograd can be written down
    recipe = small_recipe(small, sentences=getattr(request, "param", 1))
    encoded = EncodedBatches(
        encoder,
        read_sources(recipe.data.sources, drawn),
        recipe.data,
        chunk=4,
        seed=0,
        cached_sides=(),
        unreadable_files={},
        cache=Cache(tmp_path),
    )
    return encoder, encoded, recipe.train, torch.optim.SGD(encoder.parameters(), lr=1.0)


def _plain_loss(encoder, encoded, batch):
    visual = torch.cat([encoded.embed_visual(piece) for piece in batch.visual])
    visual = torch.cat([row.expand(times, -1) for row, times in zip(visual, batch.repeats, strict=True)])
    text = encoder.encode_text(batch.sentences)
    return info_nce(visual, text, scale=encoder.scale, ids=(batch.visual_ids, batch.text_ids, batch.label_ids))


@pytest.mark.parametrize("parts", [1, 2], indirect=True)
def test_a_step_follows_the_gradient_of_its_batch(parts):
    encoder, encoded, config, optimizer = parts
    (batch,) = encoded.batches(1, 2, batch=5)
    loss = _plain_loss(encoder, encoded, batch)
    loss.backward()
    expected = {name: p.detach() - p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in encoder.parameters() if p.grad is not None))
    outcome = take_step(encoder, encoded.encoders, batch, optimizer, config, seed=0)
    assert outcome.loss == pytest.approx(loss.item(), rel=1e-5)
    assert outcome.gradient_norm == pytest.approx(norm, rel=1e-4)
    assert outcome.clips == sum(map(len, batch.visual))
    for name, parameter in encoder.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-4, atol=1e-6)


def test_an_fp16_step_is_skipped_when_it_overflows_and_taken_with_a_smaller_scale(parts):
    """fp16 is for CUDA; GradScaler's part of it runs here too."""
    encoder, encoded, config, optimizer = parts
    (batch,) = encoded.batches(0, 1, batch=5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    half = replace(config, precision="fp16")
    outcome = take_step(encoder, encoded.encoders, batch, optimizer, half, seed=0, scaler=scaler)
    assert not math.isfinite(outcome.gradient_norm)
    assert all(torch.equal(p, before[name]) for name, p in encoder.named_parameters())
    assert scaler.get_scale() == 2.0**119
    scaler.update(2.0**8)
    taken = take_step(encoder, encoded.encoders, batch, optimizer, half, seed=0, scaler=scaler)
    moved = {name: before[name] - p.detach() for name, p in encoder.named_parameters()}
    norm = math.sqrt(sum(change.square().sum().item() for change in moved.values()))
    assert taken.gradient_norm == pytest.approx(norm, rel=1e-2), "unscaled before it was measured and taken"


def test_a_gradient_is_cut_to_its_norm(parts):
    encoder, encoded, config, optimizer = parts
    before = [p.detach().clone() for p in encoder.parameters()]
    outcome = take_step(
        encoder, encoded.encoders, next(encoded.batches(0, 1, batch=5)), optimizer, config, seed=0, clip_norm=0.01
    )
    moved = math.sqrt(sum((a - b).square().sum().item() for a, b in zip(before, encoder.parameters(), strict=True)))
    assert outcome.gradient_norm > 0.01
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_the_scale_stays_within_clips_bound(parts):
    encoder, encoded, config, _ = parts
    optimizer = torch.optim.SGD([encoder.log_scale], lr=1e6)
    take_step(encoder, encoded.encoders, next(encoded.batches(0, 1, batch=5)), optimizer, config, seed=0)
    assert 0 <= encoder.log_scale.item() <= math.log(100) + 1e-6


def test_a_loss_that_is_no_number_stops_the_run_before_the_step(parts):
    encoder, encoded, config, optimizer = parts
    with torch.no_grad():
        encoder.text.head.project.weight[0, 0] = math.nan
    before = encoder.visual.image.stem.weight.detach().clone()
    with pytest.raises(TrainingError, match="this step was not taken"):
        take_step(encoder, encoded.encoders, next(encoded.batches(0, 1, batch=5)), optimizer, config, seed=0)
    assert torch.equal(encoder.visual.image.stem.weight, before)
