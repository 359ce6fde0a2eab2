"""How another library's network is given pictures: laid out as it is quickest, of a size that it takes."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clipact.errors import ModelError


def show(network: nn.Module, images: Float[Tensor, "b c h w"], *, size: tuple[int, int], fixed: bool) -> Any:
    """What the network makes of the pictures.

    size   the height and width that it was made for
    fixed  whether it takes no other
    ModelError for pictures of another size, when it is fixed and wherever the network fails on them.
    """
    seen = tuple(images.shape[-2:])
    if fixed and seen != size:
        raise ModelError(f"pictures are {seen} pixels; this tower takes {size}")
    if images.device.type == "cpu":
        # Of 8 pictures on two cores: ResNet-50 404 ms instead of 496, MobileCLIP-S1 620 instead of 748, CLIP's RN50 597
        # instead of 625; transformers and ConvNeXt, which turn their pictures by themselves, as before.
        images = images.contiguous(memory_format=torch.channels_last)
    try:
        return network(images)
    except (RuntimeError, AssertionError, ValueError) as error:
        if seen == size or isinstance(error, torch.OutOfMemoryError):
            raise
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"pictures are {seen} pixels; this tower takes {size}, and others, but fails on these: {cause}"
        ) from error
