"""Video Swin (arXiv 2106.13230): torchvision's swin3d with a head.

What its windows cannot be laid over without padding is refused: a padded
clip is another clip, and a map smaller than a window would take position biases that are not its own.
"""

from dataclasses import dataclass, field
from typing import Literal

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from clipact.clip_spec import ClipSpec
from clipact.errors import ConfigError, ModelError, import_library
from clipact.models.towers.tower import HasHead, Head, VisualTower

SwinVariant = Literal["tiny", "small", "base"]

_SIZES: dict[
    SwinVariant, tuple[int, tuple[int, ...], tuple[int, ...], float]
] = {  # width, depths, heads, stochastic depth
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24), 0.1),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24), 0.1),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32), 0.1),
}
_PATCH = (2, 4, 4)

KINETICS = ClipSpec(
    frames=32,
    sampling="fps",
    rate_fps=15.0,
    size=(224, 224),
    shorter_side_pixels=256,
    interpolation="bilinear",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
"""How torchvision prepares clips for the published weights: the transforms of `Swin3D_T_Weights` and its like, and
the clip_len and frame_rate of their stated accuracies. Pictures that shrink are antialiased here, and not there."""


class Swin3D(VisualTower, HasHead):
    """Clips of an even number of frames, at the size of its spec."""

    order_free = False

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Which network, how large its windows are (time, height, width), and the head that ends it.

        width, depths, heads  in place of the variant's, all three: of the first stage, blocks and heads a stage
        """

        variant: SwinVariant = "tiny"
        window: tuple[int, int, int] = (8, 7, 7)
        width: int | None = None
        depths: tuple[int, ...] = ()
        heads: tuple[int, ...] = ()
        head: Head.Config = field(default_factory=lambda: Head.Config(blocks=0))

        def __post_init__(self) -> None:
            if self.width is None and not self.depths and not self.heads:
                return
            stages = len(self.depths)
            if self.width is None or not stages or len(self.heads) != stages or min(*self.depths, *self.heads) < 1:
                raise ConfigError(
                    f"width is {self.width}, depths {self.depths}, heads {self.heads}; all three are given, or none, "
                    "and depths and heads have a number above 0 for each stage"
                )
            if any(self.width * 2**stage % heads for stage, heads in enumerate(self.heads)):
                raise ConfigError(
                    f"width is {self.width} and heads {self.heads}; heads divide the width, which doubles each stage"
                )

    def __init__(self, config: Config, *, spec: ClipSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        width, depths, heads, drop = _SIZES[config.variant]
        if config.width is not None:
            width, depths, heads = config.width, config.depths, config.heads
        self._refuse_size(stages=len(depths))
        self._refuse_length(spec.frames)
        swin_transformer = import_library("torchvision.models.video.swin_transformer")
        self.network = swin_transformer.SwinTransformer3d(
            patch_size=list(_PATCH),
            embed_dim=width,
            depths=list(depths),
            num_heads=list(heads),
            window_size=list(config.window),
            stochastic_depth_prob=drop,
        )
        out = self.network.num_features
        self.network.head = nn.Identity()
        self.head = Head(out, config.head)
        self.dim = self.head.dim

    def features(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b f"]:
        """What the network sees, normalised and averaged over space and time."""
        self._refuse_length(video.shape[1])
        if tuple(video.shape[-2:]) != self.spec.size:
            raise ModelError(f"frames are {tuple(video.shape[-2:])} pixels; this tower takes {self.spec.size}")
        return self.network(rearrange(video, "b t c h w -> b c t h w"))

    def forward(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b d"]:
        """The features of each clip, through the head; ModelError for an odd number of frames or another size."""
        return self.head(self.features(video))

    def _refuse_size(self, *, stages: int) -> None:
        for side, window in zip(self.spec.size, self.config.window[1:], strict=True):
            maps = [side // _PATCH[1] // 2**stage for stage in range(stages)]
            step = _PATCH[1] * 2 ** (stages - 1)
            if side % step or min(maps) < window or any(extent % window for extent in maps):
                raise ConfigError(
                    f"size is {self.spec.size} and window {self.config.window}: maps are {maps} tokens wide, and a "
                    f"window divides each of them; windows of {window} take multiples of {step * window} pixels"
                )

    def _refuse_length(self, frames: int) -> None:
        steps, window = frames // _PATCH[0], self.config.window[0]
        if frames % _PATCH[0] or (steps > window and steps % window):
            raise ModelError(
                f"a clip has {frames} frames; this tower takes even numbers up to {_PATCH[0] * window}, "
                f"and multiples of that"
            )
