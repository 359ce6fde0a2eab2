"""Ways from one vector a frame to one vector a clip.

Each is made for features of one width and clips of about `frames` frames, and takes any number of frames. Those that
learn begin exactly at the mean: what they add to it begins at zero, and learns. Each says whether it is blind to the
order of the frames.

The temporal shift is none of these, for it lies inside the image tower: it is `shift` of `clipact.models.towers.frame_aggregator`, goes
together with each of them, and takes mini's tower, transformers' and what `clipact.models.nn.temporal_shift` lists.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from clipact.errors import ConfigError
from clipact.models.nn.attention import Block, init_positions, interpolate_positions, zero_init


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
    """The mean over the frames, without weights."""

    order_free = True

    def __init__(self, width: int, *, frames: int, config: Aggregator.Config) -> None:
        super().__init__()

    def forward(self, frames: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        """The mean."""
        return frames.mean(1)


class Max(Aggregator):
    """The largest value of each feature."""

    order_free = True

    def __init__(self, width: int, *, frames: int, config: Aggregator.Config) -> None:
        super().__init__()

    def forward(self, frames: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        """The largest."""
        return frames.amax(1)


class AttentionPool(Aggregator):
    """A mean whose weights the frames themselves decide, each for itself (arXiv 1802.04712, equation 8)."""

    order_free = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Aggregator.Config):
        """`hidden` is the width of the layer that weighs."""

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
    """Two convolutions along time with a bend between them, added to each frame before the mean."""

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
        """The mean of the frames, each with what its neighbours say."""
        seen = F.gelu(self.see(rearrange(self.norm(frames), "b t d -> b d t")))
        return frames.mean(1) + self.add(seen).mean(2)


class Recurrent(Aggregator):
    """What a recurrent network holds after the last frame, added to the mean."""

    order_free = False
    memory: nn.LSTM | nn.GRU

    @dataclass(frozen=True, kw_only=True)
    class Config(Aggregator.Config):
        """Numbers in the memory, and layers of it."""

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
        """The mean, and what is remembered at the end."""
        remembered, _ = self.memory(self.norm(frames))
        return frames.mean(1) + self.add(remembered[:, -1])


class LSTM(Recurrent):
    """A long short-term memory over the frames (arXiv 1411.4389)."""

    @staticmethod
    def remember(width: int, config: Recurrent.Config) -> nn.LSTM | nn.GRU:
        """The memory with its gates."""
        return nn.LSTM(width, config.hidden, config.layers, batch_first=True)


class GRU(Recurrent):
    """Gated recurrent units over the frames (arXiv 1406.1078): an LSTM with a gate fewer and no second state."""

    @staticmethod
    def remember(width: int, config: Recurrent.Config) -> nn.LSTM | nn.GRU:
        """The units."""
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
