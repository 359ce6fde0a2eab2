"""All together beside one plain backward: chunks, distinct sentences, kept graphs and tiles, on a DualEncoder."""

import pytest
import torch

from clipact.dual_encoder import DualEncoder
from clipact.losses import LOSSES
from clipact.training.chunks import Encoder
from clipact.training.gradcache import cached_step
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
