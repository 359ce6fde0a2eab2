"""PyTorch's own attention answers the same whichever way its tokens lie in memory."""

import torch
from torch import nn

from clipact.models.nn.attention import make_attention_inputs_contiguous


def _twins(**given) -> tuple[nn.MultiheadAttention, nn.MultiheadAttention]:
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(12, 3, batch_first=True, **given)
    laid = nn.MultiheadAttention(12, 3, batch_first=True, **given)
    laid.load_state_dict(plain.state_dict())
    return plain, make_attention_inputs_contiguous(laid)


def test_tokens_that_look_at_each_other_get_the_same_answer_and_gradient():
    plain, laid = _twins()
    mask = torch.full((5, 5), -torch.inf).triu(1)
    found = []
    for one in (plain, laid):
        tokens = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1)).requires_grad_()
        answer = one(tokens, tokens, tokens, need_weights=False, attn_mask=mask)[0]
        answer.square().sum().backward()
        found.append((answer, tokens.grad, one.in_proj_weight.grad))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_in_16_bits_the_weights_meet_all_tokens_in_one_product():
    products = []
    for one in _twins():
        tokens = torch.randn(4, 5, 12)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), torch.profiler.profile() as seen:
            one(tokens, tokens, tokens, need_weights=False)
        products.append("aten::bmm" in {event.key for event in seen.key_averages()})
    assert products == [True, False], "plain torch no longer needs what make_attention_inputs_contiguous does"


def test_queries_of_their_own_are_left_as_they_are():
    plain, laid = _twins()
    query, tokens = torch.randn(2, 1, 12), torch.randn(2, 5, 12)
    torch.testing.assert_close(laid(query, tokens, tokens)[0], plain(query, tokens, tokens)[0])
