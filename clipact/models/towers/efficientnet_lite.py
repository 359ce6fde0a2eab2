"""EfficientNet-Lite: MobileNet blocks scaled in width and depth, without squeeze-and-excitation or swish.

Lite keeps the ratios of EfficientNet (arXiv 1905.11946, table 1) but never scales the stem, the head, and the depth of
the first and last stage. Pictures arrive as (x - 127) / 128; padding is TensorFlow's "SAME", which puts the odd pixel
below and to the right. This file holds the network alone: weights and pictures come from elsewhere.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from clipact.clip_spec import ClipSpec
from clipact.config import check_probability
from clipact.models.towers.tower import HasFeatureMaps, HasHead, Head, ImageTower, SupportsTemporalShift


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


EfficientNetVariant = Literal["lite0", "lite1", "lite2"]

_SCALES: dict[EfficientNetVariant, tuple[float, float, int]] = {  # width, depth, pixels
    "lite0": (1.0, 1.0, 224),
    "lite1": (1.0, 1.1, 240),
    "lite2": (1.1, 1.2, 260),
}
_STAGES = (  # expansion, channels, blocks, stride, kernel
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_STEM_CHANNELS, _FEATURES = 32, 1280
_NORM_EPS = 1e-3  # TensorFlow's, not torch's 1e-5


class EfficientNetLite(ImageTower, HasHead, SupportsTemporalShift, HasFeatureMaps):
    """One picture in, its pooled features through a head out."""

    at_once = 4  # of 8 pictures of 260 pixels: 133 ms by fours, 150 by eights, 167 in twos on two cores with AVX-512

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Which network, and the head that ends it.

        stochastic_depth  in training, the chance that a block adds nothing to its input for a picture: it grows evenly
                          from block to block, up to this (arXiv 1603.09382, eq. 4)
        """

        variant: EfficientNetVariant = "lite2"
        stochastic_depth: float = 0.0
        head: Head.Config = field(default_factory=Head.Config)

        def __post_init__(self) -> None:
            check_probability("stochastic_depth", self.stochastic_depth)

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, depth, pixels = _SCALES[config.variant]
        self.config = config
        self.spec = ClipSpec(
            frames=1, size=(pixels, pixels), mean=(127 / 255,) * 3, std=(128 / 255,) * 3, interpolation="bicubic"
        )
        self.stem = ConvNorm2d(3, _STEM_CHANNELS, kernel=3, stride=2)
        shapes = [
            (_round_to_eight(channels * width), expansion, kernel, stride if i == 0 else 1)
            for stage, (expansion, channels, count, stride, kernel) in enumerate(_STAGES)
            for i in range(math.ceil(count * depth) if 0 < stage < len(_STAGES) - 1 else count)
        ]
        blocks, channels_in = nn.Sequential(), _STEM_CHANNELS
        for i, (channels_out, expansion, kernel, stride) in enumerate(shapes):
            left_out = config.stochastic_depth * (i + 1) / len(shapes)
            blocks.append(
                InvertedResidual(
                    channels_in, channels_out, expansion=expansion, kernel=kernel, stride=stride, left_out=left_out
                )
            )
            channels_in = channels_out
        self.blocks = blocks
        self.last = ConvNorm2d(channels_in, _FEATURES)
        self.head = Head(_FEATURES, config.head)
        self.dim = self.head.dim

    @property
    def residual_branches(self) -> list[tuple[nn.Module, int]]:
        """The first convolution of each block that adds its input to its output."""
        return [
            (block.expand or block.depthwise, 1)
            for block in self.blocks
            if isinstance(block, InvertedResidual) and block.adds
        ]

    @property
    def map_dim(self) -> int:
        """As many numbers a place as a picture has features."""
        return _FEATURES

    def maps(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h2 w2 f"]:
        """What the network sees at each place, 0..6."""
        return rearrange(self._see(images), "b f h w -> b h w f")

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f"]:
        """What the network sees before its head: 1280 numbers a picture, 0..6."""
        return self._see(images).mean((2, 3))

    def _see(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f h2 w2"]:
        # Channels last: 8 pictures of 260 pixels take 180 ms instead of 500 on two cores (AVX2).
        x = F.relu6(self.stem(images.contiguous(memory_format=torch.channels_last)), inplace=True)
        return F.relu6(self.last(self.blocks(x)), inplace=True)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The features of each picture, through the head."""
        return self.head(self.features(images))


class InvertedResidual(nn.Module):
    """Widen, filter each channel alone, narrow; the input is added where shapes agree (arXiv 1801.04381).

    left_out  in training, the chance that a picture's input passes as it is, where it is added
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, expansion: int, kernel: int, stride: int, left_out: float = 0.0
    ) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.expand = ConvNorm2d(channels_in, wide) if expansion > 1 else None
        self.depthwise = ConvNorm2d(wide, wide, kernel=kernel, stride=stride, groups=wide)
        self.project = ConvNorm2d(wide, channels_out)
        self.adds = stride == 1 and channels_in == channels_out
        self.left_out = left_out

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """The block's output, `stride` times smaller."""
        y = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        if self.adds and self.training and self.left_out:
            kept = torch.rand(len(y), 1, 1, 1, device=y.device) >= self.left_out
            y = y * (kept / (1 - self.left_out)).to(y.dtype)
        return x + y if self.adds else y


class ConvNorm2d(nn.Module):
    """A convolution with "SAME" padding, and its batch norm.

    Where the norm is frozen, as in evaluation, it is folded into the weights at each call: that costs 3 ms a batch and
    saves a pass over every activation, and neither the weights on disk nor a return to training have to know.
    """

    def __init__(self, channels_in: int, channels_out: int, *, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride=stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(channels_out, eps=_NORM_EPS)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Convolved and normalised, without an activation."""
        conv, norm = self.conv, self.norm
        x, padding = _pad_same(x, conv.kernel_size[0], conv.stride[0])
        if norm.training:
            return norm(self._convolve(x, conv.weight, padding))
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = conv.weight * rearrange(gain, "o -> o 1 1 1")
        bias = norm.bias - norm.running_mean * gain
        return self._convolve(x, weight, padding, bias)

    def _convolve(self, x: Tensor, weight: Tensor, padding: tuple[int, int], bias: Tensor | None = None) -> Tensor:
        if self.conv.groups == 1:
            return F.conv2d(x, weight, bias, self.conv.stride, padding)
        return depthwise_conv(x, weight, bias, stride=self.conv.stride[0], padding=padding)


def _pad_same(x: Tensor, kernel: int, stride: int) -> tuple[Tensor, tuple[int, int]]:
    """The input and the padding that the convolution itself must add, so that ceil(size / stride) pixels come out."""
    height, width = (max((-size % stride or stride) and kernel - (size % stride or stride), 0) for size in x.shape[-2:])
    if height % 2 == 0 and width % 2 == 0:
        return x, (height // 2, width // 2)
    # Only an odd amount has to be written out: a convolution pads both sides alike.
    top, left = height // 2, width // 2
    return F.pad(x, (left, width - left, top, height - top)), (0, 0)


def _round_to_eight(channels: float) -> int:
    """The nearest multiple of eight that is no more than a tenth below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
