"""Ways from one vector a frame to one vector a clip."""

from jaxtyping import Float
from torch import Tensor, nn


class Mean(nn.Module):
    """The mean over the frames, without weights; the order of the frames cannot matter."""

    order_free = True

    def forward(self, frames: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        """As many numbers as a frame has, not normalised."""
        return frames.mean(1)


AGGREGATORS: dict[str, type[Mean]] = {"mean": Mean}
