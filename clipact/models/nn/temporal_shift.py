"""Temporal shift (TSM, arXiv 1811.08383), and the residual branches of open_clip's and timm's networks that it fits.

Only networks are listed whose branches see whole pictures, one a row. MobileViT's attention has a row for each place of
a patch, Swin V2's branch begins after its pictures are cut into windows: frames have no neighbours there.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from clipact.errors import ConfigError


def temporal_shift(x: Float[Tensor, "bt *rest"], *, frames: int, share: float, axis: int) -> Float[Tensor, "bt *rest"]:
    """Shift `share` of the channels one frame forward in time and as many one frame back.

    axis  where the channels lie, not the first; channels that come from before the first or after the last frame are 0
    """
    moved = int(x.shape[axis] * share)
    clips = rearrange(x.movedim(axis, 1), "(b t) c ... -> b t c ...", t=frames)
    before, after, still = clips[:, :, :moved], clips[:, :, moved : 2 * moved], clips[:, :, 2 * moved :]
    nothing = torch.zeros_like(before[:, :1])
    shifted = torch.cat([torch.cat([nothing, before[:, :-1]], 1), torch.cat([after[:, 1:], nothing], 1), still], dim=2)
    shifted = rearrange(shifted, "b t c ... -> (b t) c ...").movedim(1, axis)
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return shifted.contiguous(memory_format=torch.channels_last)  # as it came: convolutions go on as they went
    return shifted


# A network: its blocks by name, the module that a block's branch begins with, and the axis of the channels before it.
BRANCHES: dict[str, dict[str, tuple[str, int]]] = {
    "open_clip.transformer.VisionTransformer": {
        "ResidualAttentionBlock": ("ln_1", -1),
        "CustomResidualAttentionBlock": ("ln_1", -1),
    },
    "open_clip.modified_resnet.ModifiedResNet": {"Bottleneck": ("conv1", 1)},
    "timm.models.vision_transformer.VisionTransformer": {"Block": ("norm1", -1)},
    "timm.models.eva.Eva": {"EvaBlock": ("norm1", -1)},
    "timm.models.swin_transformer.SwinTransformer": {"SwinTransformerBlock": ("norm1", -1)},
    "timm.models.convnext.ConvNeXt": {"ConvNeXtBlock": ("conv_dw", 1)},
    "timm.models.resnet.ResNet": {"BasicBlock": ("conv1", 1), "Bottleneck": ("conv1", 1)},
    "timm.models.efficientnet.EfficientNet": {"InvertedResidual": ("conv_pw", 1)},
    "timm.models.fastvit.FastVit": {"RepMixerBlock": ("mlp", 1), "AttentionBlock": ("norm", 1)},
}


def residual_branches(network: nn.Module) -> list[tuple[nn.Module, int]]:
    """The first module of each branch, in order, and the axis of the channels in its input.

    ConfigError for a network that is not listed, or is built of other blocks.
    """
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(network).__mro__]
    blocks = next((BRANCHES[name] for name in names if name in BRANCHES), {})
    found = [
        (getattr(block, blocks[type(block).__name__][0]), blocks[type(block).__name__][1])
        for block in network.modules()
        if type(block).__name__ in blocks and getattr(block, "has_skip", True)  # EfficientNet's add nothing at a stride
    ]
    if not found:
        known = ", ".join(f"{name.partition('.')[0]}'s {name.rpartition('.')[2]}" for name in BRANCHES)
        raise ConfigError(
            f"shift is not known for a {names[0]}, or not for its blocks; leave shift out, or take {known}, "
            "a CLIP or SigLIP of transformers, or the tower efficientnet_lite"
        )
    return found
