"""A moving mean of the weights: it wanders less than they do, and is what is judged and saved."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving mean of weights and running statistics (arXiv 1503.01445, section 7).

    Early on the decay is lower, (1 + step) / (10 + step), so that random beginnings are soon forgotten.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], *, decay: float) -> None:
        self.decay = decay
        self._live = moving_tensors(model, names)
        self.tensors = {name: tensor.detach().clone() for name, tensor in self._live.items()}

    @torch.no_grad()
    def update(self, *, step: int) -> None:
        """Take in the weights as they are after this step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, mean in self.tensors.items():
            if mean.is_floating_point():
                mean.lerp_(self._live[name].to(mean.dtype), 1 - decay)
            else:
                mean.copy_(self._live[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the mean weights; afterwards its own again."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, mean in self.tensors.items():
            kept = mean.clone()
            mean.copy_(self._live[name])
            self._live[name].copy_(kept)


def moving_tensors(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """What training changes: the parameters of these names, and every buffer that is saved with the model."""
    parameters: Mapping[str, Tensor] = dict(model.named_parameters())
    saved = model.state_dict(keep_vars=True)
    buffers = {name: tensor for name, tensor in model.named_buffers() if name in saved}
    return {name: parameters[name] for name in names} | buffers
