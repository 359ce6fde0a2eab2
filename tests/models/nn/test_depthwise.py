"""Depthwise convolutions in bfloat16 give what PyTorch gives, and the gradients that it gives in 32 bits."""

import pytest
import torch
import torch.nn.functional as F

from clipact.models.towers.efficientnet_lite import depthwise_conv

SHAPES = [  # height, width, kernel, stride, padding
    (9, 7, 5, 1, (2, 2)),
    (8, 12, 5, 2, (1, 2)),
    (11, 11, 5, 2, (0, 0)),
    (5, 6, 5, 1, (2, 0)),
    (9, 9, 3, 2, (1, 1)),
    (7, 10, 3, 2, (0, 0)),
    (6, 6, 3, 1, (1, 1)),
    (8, 8, 1, 2, (0, 0)),
    (9, 8, 4, 2, (1, 1)),
]


@pytest.mark.parametrize(("height", "width", "kernel", "stride", "padding"), SHAPES)
@pytest.mark.parametrize("biased", [True, False])
def test_equals_pytorch(height, width, kernel, stride, padding, biased):
    torch.manual_seed(height)
    x = torch.randn(3, 8, height, width).bfloat16()
    weight, bias = torch.randn(8, 1, kernel, kernel).bfloat16(), torch.randn(8).bfloat16() if biased else None
    given = [each for each in (x, weight, bias) if each is not None]

    def learnt(convolve, dtype):
        own = [each.to(dtype).requires_grad_() for each in given]
        y = convolve(*own)
        torch.manual_seed(1)
        return [y, *torch.autograd.grad(y, own, torch.randn(y.shape).bfloat16().to(dtype))]

    ours = learnt(lambda *own: depthwise_conv(*own, stride=stride, padding=padding), torch.bfloat16)
    theirs = learnt(lambda *own: F.conv2d(*own, stride=stride, padding=padding, groups=8), torch.float32)
    plain = F.conv2d(x, weight, bias, stride, padding, groups=8)
    assert torch.equal(ours[0], plain)
    for mine, wanted in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.float(), wanted, atol=0.03, rtol=0.02)


def test_weights_in_32_bits_learn_in_32_bits():
    x = torch.randn(2, 8, 9, 9).bfloat16()
    weight = torch.randn(8, 1, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        depthwise_conv(x, weight, stride=1, padding=(2, 2)).sum().backward()
    assert weight.grad.dtype == torch.float32
    torch.testing.assert_close(weight.grad[:, 0, 2, 2], x.float().sum((0, 2, 3)), atol=0.3, rtol=0.02)


def test_what_learns_nothing_gets_no_gradient():
    x = torch.randn(2, 8, 9, 9).bfloat16()
    weight = torch.randn(8, 1, 5, 5).bfloat16().requires_grad_()
    depthwise_conv(x, weight, stride=2, padding=(2, 2)).sum().backward()
    assert x.grad is None
    frozen = weight.detach()
    depthwise_conv(x.requires_grad_(), frozen, stride=2, padding=(2, 2)).sum().backward()
    assert frozen.grad is None
    assert x.grad is not None
