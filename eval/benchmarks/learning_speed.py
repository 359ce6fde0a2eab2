"""What a CPU's step gains where torch's own gradient is slow: depthwise convolutions, and attention over sentences.

    python eval/benchmarks/learning_speed.py [--variant lite2] [--pixels 260] [--batch 16] [--sentences 32]

EfficientNet-Lite and MiniLM's size of BertText, random weights, forward and backward in bfloat16 with frozen norms: as
they are, and with `F.conv2d` and fused attention in the same places. Repeats alternate; the best of each counts.
"""

import argparse
import time
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F

from clipact.models.towers import efficientnet_lite, text
from clipact.models.towers.efficientnet_lite import EfficientNetLite
from clipact.models.towers.text import Layer


def plain_conv(x, weight, bias=None, *, stride, padding):
    """What `depthwise_conv` stands for."""
    return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))


@contextmanager
def instead(module, name, other):
    """Inside, the module's name means something else."""
    own = getattr(module, name)
    setattr(module, name, other)
    try:
        yield
    finally:
        setattr(module, name, own)


def seconds(network, *inputs):
    """One forward and backward pass."""
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        y = network(*inputs)
    y.float().square().mean().backward()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="lite2")
    parser.add_argument("--pixels", type=int, default=260)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--sentences", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.manual_seed(0)
    tower = EfficientNetLite(EfficientNetLite.Config(variant=given.variant)).train()
    for module in tower.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    pictures = torch.randn(given.batch, 3, given.pixels, given.pixels)
    layers = torch.nn.ModuleList([Layer(384, heads=12, hidden=1536) for _ in range(6)])
    tokens, mask = torch.randn(given.sentences, 16, 384), torch.ones(given.sentences, 1, 1, 16, dtype=torch.bool)

    def read(x):
        for layer in layers:
            x = layer(x, mask)
        return x

    rows = [
        (f"{given.variant} at {given.pixels} pixels", tower, pictures, efficientnet_lite, "depthwise_conv", plain_conv),
        ("six layers over sentences", read, tokens, text, "sdpa_kernel", lambda _: nullcontext()),
    ]
    for name, network, inputs, *torchs_own in rows:
        own, other = [], []
        for _ in range(given.repeats):
            own.append(seconds(network, inputs))
            with instead(*torchs_own):
                other.append(seconds(network, inputs))
        count = len(inputs)
        print(
            f"{name}: {count / min(own):.1f} a second, {count / min(other):.1f} with torch's own: "
            f"{min(other) / min(own):.2f} times as fast"
        )


if __name__ == "__main__":
    main()
