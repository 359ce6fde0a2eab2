"""A clip seen place by place: an image tower's maps of each frame, and a head that looks over all of them."""

from dataclasses import dataclass, field, replace

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from clipact.clip_spec import ClipSpec
from clipact.errors import ConfigError
from clipact.nn.attentive import AttentiveHead
from clipact.towers.tower import Headed, ImageTower, Mapped, VisualTower


class AttentiveTower(VisualTower, Headed):
    """Any image tower that has a vector a place, made a video tower by attention pooling over places and frames.

    image  the tower for one frame
    spec   how clips are prepared; when None, the image tower's pictures in the default number of frames
    Where the head looks, `attention` says.
    """

    order_free = False
    head: AttentiveHead

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """The head that looks."""

        head: AttentiveHead.Config = field(default_factory=AttentiveHead.Config)

    def __init__(self, image: ImageTower, config: Config | None = None, *, spec: ClipSpec | None = None) -> None:
        super().__init__()
        if not isinstance(image, Mapped):
            raise ConfigError(
                f"a {type(image).__name__} gives no vector a place for attention to look at; "
                "efficientnet_lite, transformers and the vision transformers of open_clip do"
            )
        self.config = config or self.Config()
        self.image = image
        self.spec = spec or replace(image.spec, frames=ClipSpec().frames)
        self.head = AttentiveHead(image.map_dim, frames=self.spec.frames, config=self.config.head)
        self.dim = self.head.dim

    def features(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t h2 w2 f"]:
        """The image tower's vector of each place of each frame."""
        assert isinstance(self.image, Mapped)
        maps = self.image.maps(rearrange(video, "b t c h w -> (b t) c h w"))
        return rearrange(maps, "(b t) h w f -> b t h w f", t=video.shape[1])

    def forward(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b d"]:
        """The features of each clip, any number of frames."""
        return self.head(self.features(video))

    def attention(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t h2 w2"]:
        """How much of each place of each frame the head looks at, the mean over its heads; 1 together a clip."""
        return self.head.weights(self.features(video)).mean(1)
