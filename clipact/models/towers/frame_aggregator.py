"""A clip seen picture by picture: an image tower a frame, then one vector for all of them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from clipact.clip_spec import ClipSpec
from clipact.config import parse
from clipact.errors import ConfigError, choices
from clipact.models.nn.inserts import INSERTS, ORDER_SENSITIVE_INSERTS, check_inserts
from clipact.models.nn.temporal_shift import temporal_shift
from clipact.models.towers.aggregators import AGGREGATORS
from clipact.models.towers.tower import ImageTower, SupportsTemporalShift, VisualTower

_LOOK: ContextVar[object] = ContextVar("look", default=None)  # the one under way in this thread


class FrameAggregator(VisualTower):
    """Any image tower, made a video tower by an aggregator over the frames' raw features.

    image   the tower for one frame
    config  which aggregator, and how frames see each other inside the image tower
    spec    how clips are prepared; when None, the image tower's pictures in the default number of frames
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What makes a clip of frames.

        aggregator  a name in `clipact.models.towers.aggregators.AGGREGATORS`
        settings    the aggregator's own, such as {layers = 2}
        inserts     a block behind a convolutional module of the image tower, by its name: { "blocks.9" = "cbam" };
                    kinds in `clipact.models.nn.inserts.INSERTS`. It sees all frames of a clip at once, and learns where the
                    whole tower does
        shift       share of the channels that each residual branch of the image tower takes from the frame before,
                    and as many from the frame after: 0 for none, 0.125 in TSM (arXiv 1811.08383), 0.5 at most.
                    The image tower says where its branches begin; of open_clip's and timm's networks those that
                    `clipact.models.nn.temporal_shift` lists
        """

        aggregator: str = "mean"
        settings: dict[str, Any] = field(default_factory=dict)
        shift: float = 0.0
        inserts: dict[str, str] = field(default_factory=dict)

        def __post_init__(self) -> None:
            if self.aggregator not in AGGREGATORS:
                raise ConfigError(f"aggregator is {self.aggregator!r}; {choices(self.aggregator, AGGREGATORS)}")
            if not 0 <= self.shift <= 0.5:
                raise ConfigError(f"shift is {self.shift:g}; it is a share of the channels, 0 to 0.5")

    def __init__(self, image: ImageTower, config: Config | None = None, *, spec: ClipSpec | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        self.image = image
        self.spec = spec or replace(image.spec, frames=ClipSpec().frames)
        kind = AGGREGATORS[self.config.aggregator]
        settings = parse(kind.Config, self.config.settings, where=f"{self.config.aggregator}.settings.")
        self.aggregator = kind(image.dim, frames=self.spec.frames, config=settings)
        self.dim = image.dim
        self.order_free = (
            self.aggregator.order_free
            and not self.config.shift
            and not ORDER_SENSITIVE_INSERTS & {*self.config.inserts.values()}
        )
        self._branches()
        self.inserts = nn.ModuleDict(dict(self._make_inserts()))

    def forward(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b d"]:
        """The aggregate of the frames' features, any number of frames."""
        return self.aggregator(self.per_frame(self.image, video))

    def per_frame(self, see: Callable[[Tensor], Tensor], video: Float[Tensor, "b t ..."]) -> Float[Tensor, "b t f"]:
        """What `see`, the image tower or a part of it, makes of each frame."""
        frames = rearrange(video, "b t ... -> (b t) ...")
        with self._joined(video.shape[1]) if self.config.shift or self.config.inserts else nullcontext():
            seen = torch.cat([see(some) for some in torch.split(frames, self._at_once(frames))])
        return rearrange(seen, "(b t) f -> b t f", t=video.shape[1])

    def _at_once(self, frames: Float[Tensor, "bt ..."]) -> int:
        """How many pictures the image tower is given at a time: all, or as few as it is quickest with.

        Not in training, where norms look at the batch; not with a shift or inserts, which look at the clip; not in
        16 bits, which take half the room.
        """
        few = self.image.at_once
        joined = self.config.shift or self.config.inserts
        whole = self.training or joined or torch.is_autocast_enabled("cpu")
        pictures = frames.ndim == 4 and frames.device.type == "cpu"
        return few if few is not None and pictures and not whole else len(frames)

    def _branches(self) -> Sequence[tuple[nn.Module, int]]:
        if not self.config.shift:
            return ()
        if not isinstance(self.image, SupportsTemporalShift):
            raise ConfigError(
                f"shift is {self.config.shift:g}, but a {type(self.image).__name__} has no branches for it"
            )
        return self.image.residual_branches

    def _make_inserts(self) -> Iterator[tuple[str, nn.Module]]:
        if not self.config.inserts:
            return
        modules = dict(self.image.named_modules())
        upper = {name for name in modules if name and name.count(".") < 2}
        check_inserts(self.config.inserts, places=upper | (modules.keys() & self.config.inserts.keys()))
        channels: dict[str, int] = {}

        def look(module: nn.Module, inputs: object, maps: Tensor, place: str) -> None:
            if not isinstance(maps, Tensor) or maps.ndim != 4:
                raise ConfigError(f"inserts names {place!r}, which gives no maps (b, c, h, w) of a picture")
            channels[place] = maps.shape[1]

        hooks = [modules[place].register_forward_hook(partial(look, place=place)) for place in self.config.inserts]
        training = self.image.training
        try:
            with torch.no_grad():
                self.image.eval()(torch.zeros(1, len(self.image.spec.mean), *self.image.spec.size))
        finally:
            self.image.train(training)
            for hook in hooks:
                hook.remove()
        for place, kind in self.config.inserts.items():
            if place not in channels:
                raise ConfigError(f"inserts names {place!r}, which a {type(self.image).__name__} does not run")
            yield place.replace(".", "_"), INSERTS[kind](channels[place])

    @contextmanager
    def _joined(self, frames: int) -> Iterator[None]:
        """Inside, and in this thread, frames see each other in the image tower, which stays what it was."""
        look = object()
        before = _LOOK.set(look)

        def shift(module: nn.Module, inputs: tuple[Tensor, ...], axis: int) -> tuple[Tensor, ...]:
            if _LOOK.get() is not look:
                return inputs  # another thread's
            return (temporal_shift(inputs[0], frames=frames, share=self.config.shift, axis=axis), *inputs[1:])

        def insert(module: nn.Module, inputs: object, maps: Tensor, block: nn.Module) -> Tensor:
            if _LOOK.get() is not look:
                return maps
            clips = rearrange(maps, "(b t) c h w -> b c t h w", t=frames)
            return rearrange(block(clips), "b c t h w -> (b t) c h w")

        hooks = [module.register_forward_pre_hook(partial(shift, axis=axis)) for module, axis in self._branches()]
        hooks += [
            self.image.get_submodule(place).register_forward_hook(partial(insert, block=block))
            for place, block in zip(self.config.inserts, self.inserts.values(), strict=True)
        ]
        try:
            yield
        finally:
            _LOOK.reset(before)
            for hook in hooks:
                hook.remove()
