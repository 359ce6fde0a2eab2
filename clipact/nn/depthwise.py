"""A depthwise convolution that learns as fast as it answers, on a CPU in bfloat16.

oneDNN takes ten to forty times as long for two of its gradients as for the convolution itself; both are other sums than
it has fast code for, and can be had from sums that it has. At the input of a convolution with a stride: the gradient,
spread out by the stride, through the kernel turned around. At 5 x 5 weights: four gradients at 3 x 3 weights, over the
input shifted by two pixels or none, because each place of a kernel looks at the input by itself.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def depthwise_conv(
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "c 1 k k"],
    bias: Float[Tensor, " c"] | None = None,
    *,
    stride: int,
    padding: tuple[int, int],
) -> Float[Tensor, "b c h2 w2"]:
    """Each channel with its own kernel: what `F.conv2d` gives with as many groups, and its gradients."""
    kernel = tuple(weight.shape[-2:])
    slow = kernel == (5, 5) or (kernel == (3, 3) and stride > 1)
    if torch.is_grad_enabled() and slow and x.device.type == "cpu" and x.dtype == torch.bfloat16:
        bias = None if bias is None else bias.to(x.dtype)
        return _Depthwise.apply(x, weight.to(x.dtype), bias, stride, padding)
    return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad
        return (
            _at_input(grad, x, weight, stride=ctx.stride, padding=ctx.padding) if needed[0] else None,
            _at_weight(grad, x, weight, stride=ctx.stride, padding=ctx.padding) if needed[1] else None,
            grad.sum((0, 2, 3)) if needed[2] else None,
            None,
            None,
        )


def _at_input(grad: Tensor, x: Tensor, weight: Tensor, *, stride: int, padding: tuple[int, int]) -> Tensor:
    (b, c, h, w), around = x.shape, weight.shape[-1] - 1
    spread = grad.new_zeros(b, h + around, w + around, c).permute(0, 3, 1, 2)
    rows, columns = (
        slice(around - pad, around - pad + stride * (count - 1) + 1, stride)
        for pad, count in zip(padding, grad.shape[-2:], strict=True)
    )
    spread[:, :, rows, columns] = grad
    return F.conv2d(spread, weight.flip(2, 3), groups=c)


def _at_weight(grad: Tensor, x: Tensor, weight: Tensor, *, stride: int, padding: tuple[int, int]) -> Tensor:
    rows, columns = padding
    x = F.pad(x, (columns, columns, rows, rows))
    height, width = (stride * (count - 1) + 3 for count in grad.shape[-2:])
    found = torch.empty_like(weight)
    for i in range(0, weight.shape[-1] - 2, 2):
        for j in range(0, weight.shape[-1] - 2, 2):
            seen = x[:, :, i : i + height, j : j + width].contiguous(memory_format=torch.channels_last)
            place = found[:, :, i : i + 3, j : j + 3]
            place[:] = torch.ops.aten.convolution_backward(
                grad, seen, place, None, [stride] * 2, [0, 0], [1, 1], False, [0, 0], len(weight), [False, True, False]
            )[1]
    return found
