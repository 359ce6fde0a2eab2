"""An image transformer becomes a ViViT that gives a still clip the image's own features, to the last bits.

The image weights are open_clip's; ViViT's section 3.4 says how they are spread over time (arXiv 2103.15691).
"""

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from clipact.clip_spec import ClipSpec
from clipact.config import parse
from clipact.errors import ConfigError, choices
from clipact.models.towers.tower import ImageTower
from clipact.models.towers.vivit import ViViT

Inflation = Literal["central", "averaged"]


def inflate(image: ImageTower, settings: Mapping[str, Any], *, options: Inflation, spec: ClipSpec) -> ViViT:
    """A ViViT made of `image`, a vision transformer of open_clip's, for clips as `spec` says.

    settings  the keys of ViViT.Config that the image does not decide: attention, tubelet, time_layers
    how       "central": a tubelet's middle frame is looked at, the others begin at zero (equation 9);
              "averaged": every frame has an equal share (equation 8)
    ConfigError for another kind of image tower and for keys that the image decides.
    """
    network = getattr(image, "network", None)
    config = _config_like(network)
    if config is None or network is None:
        raise ConfigError(
            f"inflate takes a plain vision transformer of open_clip's with a class token, such as "
            f"open_clip:ViT-B-32/openai; this image tower is a {type(image if network is None else network).__name__}"
        )
    for key in settings:
        if key not in (free := ("attention", "tubelet", "time_layers")):
            raise ConfigError(f"visual.{key} is decided by the image transformer; {choices(key, free)}")
    if options not in ("central", "averaged"):
        raise ConfigError(f"visual.inflate is {options!r}; {choices(str(options), ('central', 'averaged'))}")
    if spec.size != image.spec.size:
        raise ConfigError(f"clip.size is {spec.size}, but the image transformer takes {image.spec.size}")
    tower = ViViT(parse(ViViT.Config, {**config, **settings}, where="visual."), spec=spec)
    weights = tower.state_dict() | _weights(network, tubelet=tower.config.tubelet, options=options)
    if "positions" in weights:
        weights["positions"] = repeat(weights["positions"], "l d -> t l d", t=len(tower.positions))
    tower.load_state_dict(weights)
    return tower.eval()


def _config_like(network: nn.Module | None) -> dict[str, Any] | None:
    """The Config of a ViViT of the same blocks; None for a network of another build."""
    from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer

    if not isinstance(network, VisionTransformer) or network.pool_type != "tok" or network.attn_pool is not None:
        return None
    blocks = list(network.transformer.resblocks)
    if any(type(block) is not ResidualAttentionBlock or not isinstance(block.ls_1, nn.Identity) for block in blocks):
        return None
    first, (width, dim) = blocks[0], network.proj.shape
    return {
        "width": width,
        "layers": len(blocks),
        "heads": first.attn.num_heads,
        "hidden": first.mlp.c_fc.out_features,
        "patch": network.patch_size[0],
        "patch_bias": False,
        "norm_first": isinstance(network.ln_pre, nn.LayerNorm),
        "activation": "quick_gelu" if isinstance(first.mlp.gelu, QuickGELU) else "gelu",
        "norm_eps": first.ln_1.eps,
        "head": {"dim": dim, "blocks": 0, "norm_eps": network.ln_post.eps},
    }


def _weights(network: nn.Module, *, tubelet: int, options: Inflation) -> dict[str, Tensor]:
    state = network.state_dict()
    patches = state["conv1.weight"]
    shares = torch.full((tubelet,), 1 / tubelet)
    if options == "central":
        shares = torch.zeros(tubelet)
        shares[tubelet // 2] = 1.0
    names = {
        "norm_attention.weight": "ln_1.weight",
        "norm_attention.bias": "ln_1.bias",
        "attention.qkv.weight": "attn.in_proj_weight",
        "attention.qkv.bias": "attn.in_proj_bias",
        "attention.proj.weight": "attn.out_proj.weight",
        "attention.proj.bias": "attn.out_proj.bias",
        "norm_mlp.weight": "ln_2.weight",
        "norm_mlp.bias": "ln_2.bias",
        "mlp.fc1.weight": "mlp.c_fc.weight",
        "mlp.fc1.bias": "mlp.c_fc.bias",
        "mlp.fc2.weight": "mlp.c_proj.weight",
        "mlp.fc2.bias": "mlp.c_proj.bias",
    }
    weights = {
        f"blocks.{layer}.{ours}": state[f"transformer.resblocks.{layer}.{theirs}"]
        for layer in range(len(cast(Any, network).transformer.resblocks))
        for ours, theirs in names.items()
    }
    if "ln_pre.weight" in state:
        weights |= {f"norm_first.{kind}": state[f"ln_pre.{kind}"] for kind in ("weight", "bias")}
    return weights | {
        "embed.weight": rearrange(torch.einsum("dcpq,u->dcupq", patches, shares), "d c u p q -> d (c u p q)"),
        "class_token": state["class_embedding"] + state["positional_embedding"][0],
        "positions": state["positional_embedding"][1:],
        "head.norm.weight": state["ln_post.weight"],
        "head.norm.bias": state["ln_post.bias"],
        "head.project.weight": state["proj"].T.contiguous(),
        "head.project.bias": state["proj"].new_zeros(state["proj"].shape[1]),
    }
