import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clipact.errors import ModelError
from clipact.models.dual_encoder import DualEncoder
from tests.tiny import TinyText, TinyVisual


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return DualEncoder(TinyVisual(), TinyText(), log_scale=2.0, bias=-1.0).eval()


def test_embeddings_are_the_towers_features_made_unit(encoder):
    video = torch.randn(3, 4, 3, 8, 8)
    embeddings = encoder.encode_video(video)
    torch.testing.assert_close(embeddings, F.normalize(encoder.visual(video), dim=-1))
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(3))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1), max_size=12), st.integers(1, 5)
)
def test_text_in_batches_equals_text_one_by_one(encoder, sentences, batch_size):
    together = encoder.encode_text(sentences, batch_size=batch_size)
    assert together.shape == (len(sentences), encoder.dim)
    for sentence, row in zip(sentences, together, strict=True):
        torch.testing.assert_close(encoder.encode_text([sentence])[0], row)


def test_groups_are_means_made_unit_whatever_the_order(encoder):
    sentences, groups = ["one", "two", "three", "one"], [1, 0, 1, 0]
    unit = encoder.encode_text(sentences)
    expected = torch.stack([F.normalize(unit[1] + unit[3], dim=0), F.normalize(unit[0] + unit[2], dim=0)])
    torch.testing.assert_close(encoder.embed_groups(sentences, groups), expected)


@pytest.mark.parametrize("groups", [[0, 2], [1, 1], [0], [-1, 0]])
def test_groups_with_a_gap_are_refused(encoder, groups):
    with pytest.raises(ModelError):
        encoder.embed_groups(["a", "b"], groups)


def test_logits_are_scaled_cosines_and_bias(encoder):
    video, text = F.normalize(torch.randn(2, 6), dim=-1), F.normalize(torch.randn(5, 6), dim=-1)
    torch.testing.assert_close(encoder.logits(video, text), math.exp(2.0) * video @ text.T - 1.0)
    assert encoder.scale.item() == pytest.approx(math.exp(2.0))


def test_towers_of_different_width_are_refused():
    with pytest.raises(ModelError, match="visual tower gives 6 features, the text tower 5"):
        DualEncoder(TinyVisual(6), TinyText(5))
