"""The weights with which the last stretch of a run began: what is judged and saved lies part of the way back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from clipact.training.average import moving_tensors


class Beginning:
    """A straight line between weights that are tuned and those that they were tuned from (WiSE-FT, arXiv 2109.01903).

    share  how far to go back along it: 0 is where training stands, 1 where it began
    """

    def __init__(self, model: nn.Module, names: Sequence[str], *, share: float) -> None:
        self.share = share
        self._live = moving_tensors(model, names)
        self.tensors = {name: tensor.detach().clone() for name, tensor in self._live.items()}

    @torch.no_grad()
    def remember(self) -> None:
        """Begin here, at the model's weights as they are now."""
        for name, tensor in self.tensors.items():
            tensor.copy_(self._live[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the weights in between; afterwards its own again. Counters stay as they are."""
        kept = {name: tensor.detach().clone() for name, tensor in self._live.items() if tensor.is_floating_point()}
        with torch.no_grad():
            for name, own in kept.items():
                self._live[name].lerp_(self.tensors[name].to(own.dtype), self.share)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, own in kept.items():
                    self._live[name].copy_(own)
