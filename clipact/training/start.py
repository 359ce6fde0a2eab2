"""What a run begins from: a model that is there, or towers put together from tables and pretrained parts."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from clipact import towers, zoo
from clipact.clip_spec import ClipSpec
from clipact.data.order import seed_from
from clipact.dual_encoder import DualEncoder
from clipact.errors import ConfigError
from clipact.towers.efficientnet_lite import EfficientNetLite
from clipact.towers.frames import FramesTower
from clipact.towers.text import TOKENIZER, BertText
from clipact.training.chunks import seeded
from clipact.training.parts import find_part, read_weights, rename_bert, rename_efficientnet_lite


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Pretrained parts, as PACKAGE:PATH (see `clipact.training.parts`); a tower without one begins at random.

    image, text  weights of the towers but for their heads
    tokenizer    the text tower's tokenizer.json
    """

    image: str | None = None
    text: str | None = None
    tokenizer: str


@dataclass(frozen=True, kw_only=True)
class Start:
    """Either a model's name, or towers.

    model         "mini", a folder, or another name that `clipact.zoo.load` knows
    visual, text  tables of towers, as a model's config.json has them
    clip          how clips are prepared; by default as the image tower's pictures are
    scale, bias   of the logits at the start; by default the model's, else 1/0.07 and none
    """

    model: str | None = None
    visual: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)
    parts: Parts | None = None
    clip: ClipSpec | None = None
    scale: float | None = None
    bias: float | None = None

    def __post_init__(self) -> None:
        if (self.model is None) == (self.parts is None):
            raise ConfigError("start takes either model, or visual, text and parts")
        if self.scale is not None and self.scale <= 0:
            raise ConfigError(f"start.scale is {self.scale:g}; it is above 0")


def make_encoder(start: Start, *, seed: int) -> DualEncoder:
    """The model that a run begins from, on the CPU; random weights hang on the seed alone."""
    if start.model is not None:
        encoder = zoo.load(start.model, device="cpu").encoder
    else:
        with seeded(seed_from(seed, "start")):
            encoder = _assemble(start)
    if start.scale is not None:
        with torch.no_grad():
            encoder.log_scale.copy_(torch.tensor(start.scale).log())
    if start.bias is not None:
        encoder.bias = nn.Parameter(torch.tensor(start.bias))
    return encoder


def _assemble(start: Start) -> DualEncoder:
    assert start.parts is not None
    tokenizer = find_part(start.parts.tokenizer)
    if tokenizer.name != TOKENIZER:
        raise ConfigError(f"start.parts.tokenizer is {start.parts.tokenizer!r}; it takes a file named {TOKENIZER}")
    image = towers.image_from(start.visual.get("image", {}))
    spec = start.clip or replace(image.spec, frames=ClipSpec().frames)
    visual = towers.visual_from(start.visual, spec)
    text = towers.text_from(start.text, tokenizer.parent)
    if start.parts.image is not None:
        assert isinstance(visual, FramesTower)
        _fill(visual.image, start.parts.image)
    if start.parts.text is not None:
        _fill(text, start.parts.text)
    return DualEncoder(visual, text)


def _fill(tower: nn.Module, place: str) -> None:
    """Load a tower's weights, all but its head's; ConfigError when they are of another network."""
    weights = read_weights(find_part(place))
    try:
        renamed = _renamed(tower, weights)
        own = {name: value for name, value in tower.state_dict().items() if name.startswith("head.")}
        tower.load_state_dict(renamed | own)
    except (KeyError, RuntimeError) as error:
        raise ConfigError(f"{place} does not hold the weights of a {type(tower).__name__}: {error}") from error


def _renamed(tower: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if isinstance(tower, EfficientNetLite):
        return rename_efficientnet_lite(weights)
    if isinstance(tower, BertText):
        return rename_bert(weights, max_tokens=tower.config.max_tokens)
    raise ConfigError(f"no pretrained part is known for a {type(tower).__name__}; begin from a model, or at random")
