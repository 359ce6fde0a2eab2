"""Split a tower into its backbone, whose features can be cached while it is frozen, and its head.

Training trains a head on cached features; evaluating another head on the same backbone decodes and encodes nothing.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clipact.errors import ModelError
from clipact.models import towers
from clipact.models.towers.frame_aggregator import FrameAggregator
from clipact.models.towers.tower import HasHead


@dataclass(frozen=True)
class BackboneHead:
    """A tower in two: its output is `head(body(inputs))`; `modules` hold the head's parameters."""

    body: Callable[[Tensor], Tensor]
    head: Callable[[Tensor], Tensor]
    modules: tuple[nn.Module, ...]

    def owns(self, parameter: nn.Parameter) -> bool:
        """Whether a parameter is one of the head's."""
        return any(parameter is own for module in self.modules for own in module.parameters())


def split_backbone_head(tower: nn.Module) -> BackboneHead:
    """The tower in two. Of a frame-by-frame tower the head is the image tower's, and the aggregator.

    A tower without a head has an empty one: its features are its output.
    """
    if isinstance(tower, FrameAggregator):
        inner = split_backbone_head(tower.image)

        def body(video: Tensor) -> Tensor:
            return tower.per_frame(inner.body, video)

        def head(features: Tensor) -> Tensor:
            aggregated: Tensor = tower.aggregator(tower.per_frame(inner.head, features))
            return aggregated

        return BackboneHead(body, head, (*inner.modules, tower.aggregator))
    if isinstance(tower, HasHead):
        return BackboneHead(tower.features, tower.head, (tower.head,))
    return BackboneHead(tower, lambda features: features, ())


def hash_backbone(tower: nn.Module) -> str:
    """A hex sha256 of what decides what a tower's body does: its weights, and its configuration without the head's."""
    parts = split_backbone_head(tower)
    digest = hashlib.sha256(repr(_facts(tower)).encode())
    for name, value in tower.state_dict(keep_vars=True).items():
        if not (isinstance(value, nn.Parameter) and parts.owns(value)):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _facts(tower: nn.Module) -> Any:
    try:
        table = towers.describe(tower)
    except ModelError:  # one that no table names: its build is all that is known of it
        return str(tower)
    return {
        key: value
        for key, value in (table | table.get("image", {})).items()
        if key not in ("head", "image", "aggregator", "settings")
    }
