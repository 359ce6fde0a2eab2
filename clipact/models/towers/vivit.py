"""ViViT (arXiv 2103.15691): a vision transformer over space-time tokens, and its inflation from CLIP.

Three of the paper's four kinds of attention: "joint" (model 1), "factorised_encoder" (model 2: a transformer a frame,
then one over the frames) and "factorised_self" (model 3). A joint one without class token, with sinusoidal positions of
token numbers, is the encoder of VideoMAE (arXiv 2203.12602), which can be given the visible tokens of a clip alone.
Where ours deviates: with a class token a frame, the clip's vector is the mean over the frames' tokens, and attention
along time is added to that and begins at zero. So `inflate` gives a tower whose features of a still clip are the image
transformer's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clipact.clip_spec import ClipSpec
from clipact.config import parse
from clipact.errors import ConfigError, ModelError, choices, import_library
from clipact.losses import pick_patches
from clipact.models.nn.attention import (
    MLP,
    Activation,
    Attention,
    Block,
    interpolate_positions,
    sinusoidal_grid,
    sinusoidal_positions,
    zero_init,
)
from clipact.models.towers.frame_aggregator import Transformer
from clipact.models.towers.tower import HasHead, Head, ImageTower, VisualTower


class SpaceTimeBlock(nn.Module):
    """x + space(norm(x)), x + time(norm(x)), x + mlp(norm(x)); what looks along time begins at zero."""

    def __init__(
        self, width: int, *, heads: int, hidden: int, activation: Activation = "gelu", norm_eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, eps=norm_eps)
        self.attention = Attention(width, heads=heads)
        self.norm_time = nn.LayerNorm(width, eps=norm_eps)
        self.time = Attention(width, heads=heads)
        self.norm_mlp = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, hidden=hidden, activation=activation)
        zero_init(self.time.proj)

    def forward(self, x: Float[Tensor, "b t l d"]) -> Float[Tensor, "b t l d"]:
        """The tokens after this block; each saw all of its frame, then its own place in all frames."""
        batch = len(x)
        x = x + rearrange(
            self.attention(rearrange(self.norm_attention(x), "b t l d -> (b t) l d")), "(b t) l d -> b t l d", b=batch
        )
        x = x + rearrange(
            self.time(rearrange(self.norm_time(x), "b t l d -> (b l) t d")), "(b l) t d -> b t l d", b=batch
        )
        return x + self.mlp(self.norm_mlp(x))


AttentionKind = Literal["joint", "factorised_encoder", "factorised_self"]


class ViViT(VisualTower, HasHead):
    """Clips of any number of frames that its tubelets divide, at the size of its spec."""

    order_free = False

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What the network is made of; the defaults are ViT-Ti's (arXiv 2012.12877).

        patch        pixels along the side of a token
        tubelet      frames that a token spans; 1 is the paper's uniform frame sampling (section 3.2)
        attention    "joint", "factorised_encoder" or "factorised_self"
        time_layers  of the transformer over the frames, for "factorised_encoder"
        positions    "learnt", one for each place and time step, stretched along time to other lengths; "sines" of
                     step, row and column; or "number_sines" of a token's number in the clip, as VideoMAE has them
        class_token  one for the "clip" or "none", whose vector is the mean of all tokens (both joint attention
                     alone), or one a "frame"
        norm_first   whether tokens are normalised before the first block, as in CLIP
        """

        width: int = 192
        layers: int = 12
        heads: int = 3
        hidden: int = 768
        patch: int = 16
        patch_bias: bool = True
        tubelet: int = 2
        attention: AttentionKind = "factorised_self"
        time_layers: int = 4
        positions: Literal["learnt", "sines", "number_sines"] = "learnt"
        class_token: Literal["clip", "frame", "none"] = "frame"
        norm_first: bool = False
        activation: Activation = "gelu"
        norm_eps: float = 1e-6
        head: Head.Config = field(default_factory=lambda: Head.Config(blocks=0))

        def __post_init__(self) -> None:
            if self.width % self.heads or self.width % 2:
                raise ConfigError(f"width is {self.width} and heads {self.heads}; heads and 2 divide the width")
            if self.positions == "sines" and self.width < 6:
                raise ConfigError(f"width is {self.width}; sines of step, row and column take at least 6")
            if self.tubelet < 1 or self.patch < 1:
                raise ConfigError(f"tubelet is {self.tubelet} and patch {self.patch}; both are at least 1")
            if self.class_token != "frame" and self.attention != "joint":
                raise ConfigError(
                    f"class_token is {self.class_token!r} and attention {self.attention!r}; only 'joint' can have that"
                )

    def __init__(self, config: Config, *, spec: ClipSpec) -> None:
        super().__init__()
        rows, columns = spec.size[0] // config.patch, spec.size[1] // config.patch
        if (rows * config.patch, columns * config.patch) != spec.size:
            raise ConfigError(f"size is {spec.size}; patches of {config.patch} pixels divide neither side with a rest")
        self.config, self.spec = config, spec
        self._refuse_length(spec.frames)
        inputs = len(spec.mean) * config.tubelet * config.patch**2
        self.embed = nn.Linear(inputs, config.width, bias=config.patch_bias)
        self.class_token = None
        if config.class_token != "none":
            self.class_token = nn.Parameter(0.02 * torch.randn(config.width))  # with its position added
        if config.positions == "learnt":
            steps = spec.frames // config.tubelet
            self.positions = nn.Parameter(0.02 * torch.randn(steps, rows * columns, config.width))
        self.norm_first = nn.LayerNorm(config.width, eps=config.norm_eps) if config.norm_first else None
        block = SpaceTimeBlock if config.attention == "factorised_self" else Block
        self.blocks = nn.Sequential(
            *(
                block(
                    config.width,
                    heads=config.heads,
                    hidden=config.hidden,
                    activation=config.activation,
                    norm_eps=config.norm_eps,
                )
                for _ in range(config.layers)
            )
        )
        self.over_time = None
        if config.attention == "factorised_encoder":
            settings = Transformer.Config(layers=config.time_layers, heads=config.heads)
            self.over_time = Transformer(config.width, frames=spec.frames // config.tubelet, config=settings)
        self.head = Head(config.width, config.head)
        self.dim = self.head.dim

    def features(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b f"]:
        """What the transformer makes of each clip, before the last norm and the projection."""
        x = self._tokens(video)
        if self.class_token is None:
            return self._blocks(rearrange(x, "b t l d -> b (t l) d")).mean(1)
        if self.config.class_token == "clip":
            token = repeat(self.class_token, "d -> b 1 d", b=len(x))
            return self._blocks(torch.cat([token, rearrange(x, "b t l d -> b (t l) d")], dim=1))[:, 0]
        steps = x.shape[1]
        x = torch.cat([repeat(self.class_token, "d -> b t 1 d", b=len(x), t=steps), x], dim=2)
        if self.config.attention == "joint":
            x = rearrange(self._blocks(rearrange(x, "b t l d -> b (t l) d")), "b (t l) d -> b t l d", t=steps)
        elif self.config.attention == "factorised_self":
            x = self._blocks(x)
        else:
            x = rearrange(self._blocks(rearrange(x, "b t l d -> (b t) l d")), "(b t) l d -> b t l d", t=steps)
        frames = x[:, :, 0]
        return frames.mean(1) if self.over_time is None else self.over_time(frames)

    def forward(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b d"]:
        """The features of each clip; ModelError for a number of frames or a size that the tokens do not divide."""
        return self.head(self.features(video))

    def encode_visible(
        self, video: Float[Tensor, "b t c h w"], visible: Int64[Tensor, "b v"]
    ) -> Float[Tensor, "b v d"]:
        """What the transformer makes of the tokens of these numbers, each clip its own; it is not given the others.

        For a tower without class token.
        """
        assert self.class_token is None
        seen = pick_patches(rearrange(self.patches(video), "b t l p -> b (t l) p"), visible)
        positions = rearrange(self._positions(video.shape[1] // self.config.tubelet), "t l d -> (t l) d")
        return self._blocks(self.embed(seen) + positions.to(seen)[visible])

    def patches(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b s l p"]:
        """The pixels of each token, a channel after the other; ModelError for clips that tokens do not divide."""
        config = self.config
        self._refuse_length(video.shape[1])
        if tuple(video.shape[-2:]) != self.spec.size:
            raise ModelError(f"frames are {tuple(video.shape[-2:])} pixels; this tower takes {self.spec.size}")
        return rearrange(
            video,
            "b (t u) c (h p) (w q) -> b t (h w) (c u p q)",
            u=config.tubelet,
            p=config.patch,
            q=config.patch,
        )

    def _tokens(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b s l d"]:
        x = self.embed(self.patches(video))
        return x + self._positions(x.shape[1]).to(x)

    def _positions(self, steps: int) -> Float[Tensor, "s l d"]:
        config = self.config
        if config.positions == "learnt":
            return interpolate_positions(self.positions, steps)
        rows, columns = (side // config.patch for side in self.spec.size)
        if config.positions == "number_sines":
            return rearrange(sinusoidal_positions(steps * rows * columns, config.width), "(t l) d -> t l d", t=steps)
        return rearrange(sinusoidal_grid(steps, rows, columns, width=config.width), "t h w d -> t (h w) d")

    def _blocks(self, x: Tensor) -> Tensor:
        return self.blocks(x if self.norm_first is None else self.norm_first(x))

    def _refuse_length(self, frames: int) -> None:
        if frames % self.config.tubelet:
            raise ModelError(
                f"a clip has {frames} frames; this tower sees {self.config.tubelet} at a time and takes multiples"
            )


Inflation = Literal["central", "averaged"]


def inflate(image: ImageTower, settings: Mapping[str, Any], *, inflation: Inflation, spec: ClipSpec) -> ViViT:
    """Inflate an image transformer to a ViViT that gives a still clip the image's own features, to the last bits.

    Args:
        image: A vision transformer of open_clip's.
        settings: The keys of ViViT.Config that the image does not decide: attention, tubelet, time_layers.
        inflation: "central": a tubelet's middle frame has all the weight (equation 9);
            "averaged": every frame has an equal share (equation 8).
        spec: How clips are prepared.

    Raises:
        ConfigError: Another kind of image tower, or a key that the image decides.

    Reference: arXiv 2103.15691, section 3.4.
    """
    network = getattr(image, "network", None)
    config = _config_of(network)
    if config is None or network is None:
        raise ConfigError(
            f"inflate takes a plain vision transformer of open_clip's with a class token, such as "
            f"open_clip:ViT-B-32/openai; this image tower is a {type(image if network is None else network).__name__}"
        )
    for key in settings:
        if key not in (free := ("attention", "tubelet", "time_layers")):
            raise ConfigError(f"visual.{key} is decided by the image transformer; {choices(key, free)}")
    if inflation not in ("central", "averaged"):
        raise ConfigError(f"visual.inflate is {inflation!r}; {choices(str(inflation), ('central', 'averaged'))}")
    if spec.size != image.spec.size:
        raise ConfigError(f"clip.size is {spec.size}, but the image transformer takes {image.spec.size}")
    tower = ViViT(parse(ViViT.Config, {**config, **settings}, where="visual."), spec=spec)
    weights = tower.state_dict() | _inflated_weights(network, tubelet=tower.config.tubelet, inflation=inflation)
    if "positions" in weights:
        weights["positions"] = repeat(weights["positions"], "l d -> t l d", t=len(tower.positions))
    tower.load_state_dict(weights)
    return tower.eval()


def _config_of(network: nn.Module | None) -> dict[str, Any] | None:
    """The Config of a ViViT of the same blocks; None for a network of another build."""
    library = import_library("open_clip.transformer")
    if (
        not isinstance(network, library.VisionTransformer)
        or network.pool_type != "tok"
        or network.attn_pool is not None
    ):
        return None
    blocks = list(network.transformer.resblocks)
    if any(
        type(block) is not library.ResidualAttentionBlock or not isinstance(block.ls_1, nn.Identity) for block in blocks
    ):
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
        "activation": "quick_gelu" if isinstance(first.mlp.gelu, library.QuickGELU) else "gelu",
        "norm_eps": first.ln_1.eps,
        "head": {"dim": dim, "blocks": 0, "norm_eps": network.ln_post.eps},
    }


def _inflated_weights(network: nn.Module, *, tubelet: int, inflation: Inflation) -> dict[str, Tensor]:
    state = network.state_dict()
    patches = state["conv1.weight"]
    shares = torch.full((tubelet,), 1 / tubelet)
    if inflation == "central":
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
