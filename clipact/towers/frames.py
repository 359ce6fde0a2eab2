"""A clip seen picture by picture: an image tower a frame, then one vector for all of them."""

from dataclasses import dataclass, replace

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from clipact.clip_spec import ClipSpec
from clipact.errors import ConfigError, choices
from clipact.towers.aggregators import AGGREGATORS
from clipact.towers.tower import ImageTower, VisualTower


class FramesTower(VisualTower):
    """Any image tower, made a video tower by an aggregator over the frames' raw features.

    image   the tower for one frame
    config  which aggregator
    spec    how clips are prepared; when None, the image tower's pictures in the default number of frames
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`aggregator` is a name in `clipact.towers.aggregators.AGGREGATORS`."""

        aggregator: str = "mean"

        def __post_init__(self) -> None:
            if self.aggregator not in AGGREGATORS:
                raise ConfigError(f"aggregator is {self.aggregator!r}; {choices(self.aggregator, AGGREGATORS)}")

    def __init__(self, image: ImageTower, config: Config | None = None, *, spec: ClipSpec | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        self.image = image
        self.aggregator = AGGREGATORS[self.config.aggregator]()
        self.spec = spec or replace(image.spec, frames=ClipSpec().frames)
        self.dim = image.dim
        self.order_free = self.aggregator.order_free

    def forward(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b d"]:
        """The aggregate of the frames' features, any number of frames."""
        frames = self.image(rearrange(video, "b t c h w -> (b t) c h w"))
        return self.aggregator(rearrange(frames, "(b t) d -> b t d", t=video.shape[1]))
