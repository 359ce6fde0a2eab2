"""Make a video tower of an image tower: temporal pooling turns one vector a frame into one vector a clip.

An aggregator is made for features of one width and clips of about `frames` frames, and takes any number of frames.
Those with weights begin exactly at the mean: what they add to it begins at zero. Each states whether the order of the
frames can change its output. The temporal shift is none of these: it lies inside the image tower (`shift`) and goes
together with each of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from clipact.clip_spec import ClipSpec
from clipact.config import parse
from clipact.errors import ConfigError, choices
from clipact.models.nn.attention import Block, init_positions, interpolate_positions, zero_init
from clipact.models.nn.inserts import INSERTS, ORDER_SENSITIVE_INSERTS, check_inserts
from clipact.models.nn.temporal_shift import temporal_shift
from clipact.models.towers.tower import ImageTower, SupportsTemporalShift, VisualTower


class Aggregator(nn.Module, ABC):
    """From (b, t, d) to (b, d); its Config is a frozen dataclass."""

    order_free: bool

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Nothing to choose."""

    @abstractmethod
    def forward(self, frames: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        """As many numbers as a frame has, not normalised."""


class Mean(Aggregator):
    """Mean pooling over time."""

    order_free = True

    def __init__(self, width: int, *, frames: int, config: Aggregator.Config) -> None:
        super().__init__()

    def forward(self, frames: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        """Return the mean of the frames."""
        return frames.mean(1)


class Max(Aggregator):
    """Max pooling over time."""

    order_free = True

    def __init__(self, width: int, *, frames: int, config: Aggregator.Config) -> None:
        super().__init__()

    def forward(self, frames: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        """Return the largest value of each feature."""
        return frames.amax(1)


class AttentionPool(Aggregator):
    """Attention pooling: a mean with weights, each a function of its frame (arXiv 1802.04712, equation 8)."""

    order_free = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Aggregator.Config):
        """`hidden` is the width of the layer that the weights are computed with."""

        hidden: int = 128

    def __init__(self, width: int, *, frames: int, config: Config) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.look = nn.Linear(width, config.hidden)
        self.weigh = nn.Linear(config.hidden, 1, bias=False)  # a bias would weigh all frames alike
        zero_init(self.weigh)

    def forward(self, frames: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        """The weighted mean; weights are above 0 and add up to 1."""
        weights = self.weigh(torch.tanh(self.look(self.norm(frames)))).softmax(1)
        return (weights * frames).sum(1)


class Transformer(Aggregator):
    """Self-attention over the frames and their positions, added to the mean (ActionCLIP, arXiv 2109.08472)."""

    order_free = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Aggregator.Config):
        """Blocks, heads, and the width inside a block's MLP as a multiple of the features'."""

        layers: int = 2
        heads: int = 4
        hidden: float = 2.0

    def __init__(self, width: int, *, frames: int, config: Config) -> None:
        super().__init__()
        if width % config.heads:
            raise ConfigError(f"heads is {config.heads}; it divides the width of the features, {width}")
        # As large as the normed frames: begun at 0.02, 400 steps of eval/benchmarks/motion.py taught no order, now all.
        self.positions = nn.Parameter(init_positions(frames, width))
        self.blocks = nn.Sequential(
            *(Block(width, heads=config.heads, hidden=int(width * config.hidden)) for _ in range(config.layers))
        )
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.add = nn.Linear(width, width)
        zero_init(self.add)

    def forward(self, frames: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        """The mean, and what the blocks make of the frames; positions are stretched to other numbers of frames."""
        x = self.blocks(self.norm_in(frames) + interpolate_positions(self.positions, frames.shape[1]))
        return frames.mean(1) + self.add(self.norm_out(x).mean(1))


class Convolution(Aggregator):
    """Two convolutions along time with a GELU between them, added to each frame before the mean."""

    order_free = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Aggregator.Config):
        """`kernel` is how many neighbouring frames one convolution sees, odd; `hidden` the width between the two."""

        kernel: int = 3
        hidden: int = 256

        def __post_init__(self) -> None:
            if self.kernel < 1 or self.kernel % 2 == 0:
                raise ConfigError(
                    f"kernel is {self.kernel}; it is odd, so that a frame is in the middle of what is seen"
                )

    def __init__(self, width: int, *, frames: int, config: Config) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.see = nn.Conv1d(width, config.hidden, config.kernel, padding=config.kernel // 2)
        self.add = nn.Conv1d(config.hidden, width, config.kernel, padding=config.kernel // 2)
        zero_init(self.add)

    def forward(self, frames: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        """Return the mean of the frames, each plus what its neighbours add."""
        seen = F.gelu(self.see(rearrange(self.norm(frames), "b t d -> b d t")))
        return frames.mean(1) + self.add(seen).mean(2)


class Recurrent(Aggregator):
    """The hidden state of a recurrent network after the last frame, added to the mean."""

    order_free = False
    memory: nn.LSTM | nn.GRU

    @dataclass(frozen=True, kw_only=True)
    class Config(Aggregator.Config):
        """Width of the hidden state, and layers."""

        hidden: int = 256
        layers: int = 1

    def __init__(self, width: int, *, frames: int, config: Config) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.memory = self.remember(width, config)
        self.add = nn.Linear(config.hidden, width)
        zero_init(self.add)

    @staticmethod
    @abstractmethod
    def remember(width: int, config: Config) -> nn.LSTM | nn.GRU:
        """The network, its batches first."""

    def forward(self, frames: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        """Return the mean plus a projection of the last hidden state."""
        remembered, _ = self.memory(self.norm(frames))
        return frames.mean(1) + self.add(remembered[:, -1])


class LSTM(Recurrent):
    """A long short-term memory over the frames (arXiv 1411.4389)."""

    @staticmethod
    def remember(width: int, config: Recurrent.Config) -> nn.LSTM | nn.GRU:
        """Return an LSTM."""
        return nn.LSTM(width, config.hidden, config.layers, batch_first=True)


class GRU(Recurrent):
    """Gated recurrent units over the frames (arXiv 1406.1078): an LSTM with a gate fewer and no second state."""

    @staticmethod
    def remember(width: int, config: Recurrent.Config) -> nn.LSTM | nn.GRU:
        """Return a GRU."""
        return nn.GRU(width, config.hidden, config.layers, batch_first=True)


AGGREGATORS: dict[str, Any] = {
    "mean": Mean,
    "max": Max,
    "attention": AttentionPool,
    "transformer": Transformer,
    "convolution": Convolution,
    "lstm": LSTM,
    "gru": GRU,
}


_LOOK: ContextVar[object] = ContextVar("look", default=None)  # the one under way in this thread


class FrameAggregator(VisualTower):
    """Any image tower, made a video tower by an aggregator of the frames' features.

    image   the tower for one frame
    config  which aggregator, and how frames see each other inside the image tower
    spec    how clips are prepared; when None, the image tower's pictures in the default number of frames
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What makes a clip of frames.

        aggregator  a name in `AGGREGATORS`
        settings    the aggregator's own, such as {layers = 2}
        inserts     a block behind a convolutional module of the image tower, by its name: { "blocks.9" = "cbam" };
                    kinds in `clipact.models.nn.inserts.INSERTS`. Its input is all frames of a clip; it is trained
                    where the whole tower is
        shift       share of the channels that each residual branch of the image tower takes from the frame before,
                    and as many from the frame after: 0 for none, 0.125 in TSM (arXiv 1811.08383), 0.5 at most.
                    For towers that are `SupportsTemporalShift`
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
