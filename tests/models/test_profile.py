import pytest

from clipact.errors import ModelError
from clipact.models.checkpoint import load_checkpoint
from clipact.models.dual_encoder import DualEncoder
from clipact.models.profile import count_parameters, profile_model
from clipact.models.towers.tower import Head
from clipact.models.towers.vivit import ViViT
from tests.tiny import SPEC, TinyText, TinyVisual


def test_operations_are_those_of_the_arithmetic():
    encoder = DualEncoder(TinyVisual(dim=6), TinyText(dim=6))
    cost = profile_model(encoder, repeats=1)
    assert cost.gflops == pytest.approx(2 * 3 * 6 / 1e9), (
        "one linear layer of 3 to 6: as many multiplications, added up"
    )
    assert cost.milliseconds > 0


def test_attention_is_counted():
    config = ViViT.Config(
        width=16, layers=1, heads=2, hidden=32, patch=4, tubelet=2, attention="joint", head=Head.Config(dim=6, blocks=0)
    )
    encoder = DualEncoder(ViViT(config, spec=SPEC), TinyText(dim=6)).eval()
    steps, places, width = SPEC.frames // 2, (8 // 4) ** 2, 16
    tokens = steps * (places + 1)  # each step has a token of its own
    embedded = 2 * steps * places * (3 * 2 * 4 * 4) * width
    block = 2 * tokens * width * (4 * width + 2 * 32) + 2 * 2 * tokens * tokens * width
    assert profile_model(encoder, repeats=1).gflops * 1e9 == pytest.approx(embedded + block + 2 * width * 6)


def test_more_frames_cost_more(tiny):
    encoder = load_checkpoint(tiny)
    assert profile_model(encoder, spec=encoder.spec.with_frames(6), repeats=1).gflops == pytest.approx(
        1.5 * profile_model(encoder, repeats=1).gflops, rel=0.01
    )


def test_a_number_of_frames_that_the_tower_does_not_take_is_refused_in_a_sentence():
    config = ViViT.Config(width=16, layers=1, heads=2, hidden=32, patch=4, tubelet=2, head=Head.Config(dim=6, blocks=0))
    encoder = DualEncoder(ViViT(config, spec=SPEC), TinyText(dim=6)).eval()
    with pytest.raises(ModelError, match="3 frames.*multiples"):
        profile_model(encoder, spec=SPEC.with_frames(3), repeats=1)


def test_every_number_of_both_towers_counts(tiny):
    encoder = load_checkpoint(tiny)
    counts = count_parameters(encoder)
    assert sum(counts.values()) + 1 == sum(one.numel() for one in encoder.parameters()), "and one for the scale"
