"""Adapt timm's image networks (https://github.com/huggingface/pytorch-image-models) to an image tower with a head.

Vision transformers, Swin, convolutional networks: a head projects what timm's own pooling gives into the embedding
space of a text tower. timm is imported inside functions, and fetches nothing: weights come from a file.
"""

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clipact.clip_spec import ClipSpec, Interpolation
from clipact.errors import ConfigError, ModelError, import_library
from clipact.models.nn.temporal_shift import residual_branches
from clipact.models.towers.tower import HasHead, Head, ImageTower, SupportsTemporalShift


def run_image_network(
    network: nn.Module, images: Float[Tensor, "b c h w"], *, size: tuple[int, int], fixed: bool
) -> Any:
    """What the network makes of the pictures.

    size   the height and width that it was made for
    fixed  whether it takes no other
    ModelError for pictures of another size, when it is fixed and wherever the network fails on them.
    """
    seen = tuple(images.shape[-2:])
    if fixed and seen != size:
        raise ModelError(f"pictures are {seen} pixels; this tower takes {size}")
    if images.device.type == "cpu":
        # Of 8 pictures on two cores: ResNet-50 404 ms instead of 496, MobileCLIP-S1 620 instead of 748, CLIP's RN50 597
        # instead of 625; transformers and ConvNeXt, which turn their pictures by themselves, as before.
        images = images.contiguous(memory_format=torch.channels_last)
    try:
        return network(images)
    except (RuntimeError, AssertionError, ValueError) as error:
        if seen == size or isinstance(error, torch.OutOfMemoryError):
            raise
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"pictures are {seen} pixels; this tower takes {size}, and others, but fails on these: {cause}"
        ) from error


_INTERPOLATION: dict[str, Interpolation] = {"bicubic": "bicubic", "bilinear": "bilinear"}


class TimmImage(ImageTower, HasHead, SupportsTemporalShift):
    """A network of timm's without its classifier, and a head."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What timm is asked for.

        name      timm's own, with the tag of the weights where there is one: "vit_tiny_patch16_224.augreg_in21k"
        settings  more words for timm.create_model, such as img_size or drop_path_rate
        """

        name: str
        settings: dict[str, Any] = field(default_factory=dict)
        head: Head.Config = field(default_factory=lambda: Head.Config(blocks=0))

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.network = _make(config.name, config.settings)
        self.spec = timm_clip_spec(self.network, config.settings)
        self.head = Head(self.network.head_hidden_size, config.head)
        self.dim = self.head.dim

    @property
    def residual_branches(self) -> list[tuple[nn.Module, int]]:
        """The network's, where `clipact.models.nn.temporal_shift` lists it; ConfigError where not."""
        return residual_branches(self.network)

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f"]:
        """What timm's network gives without its classifier."""
        return run_image_network(self.network, images, size=self.spec.size, fixed=has_fixed_size(self.network))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The features of each picture, through the head; ModelError for a size that the network was not made for."""
        return self.head(self.features(images))

    def rename(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """timm's weights of this network, of any age, under the names that they have here, without classifier."""
        module = sys.modules[type(self.network).__module__]
        renew = getattr(module, "checkpoint_filter_fn", lambda state, network: state)
        classifier = self.network.pretrained_cfg.get("classifier") or ()
        ends = tuple(f"{name}." for name in ((classifier,) if isinstance(classifier, str) else classifier))
        renewed = renew(dict(weights), self.network)
        return {f"network.{name}": value for name, value in renewed.items() if not name.startswith(ends)}


def has_fixed_size(network: Any) -> bool:
    """Whether a network of timm's takes pictures of one size alone: it has positions or windows, and keeps them."""
    return bool(network.pretrained_cfg.get("fixed_input_size"))


def timm_clip_spec(network: Any, settings: Mapping[str, Any]) -> ClipSpec:
    """How timm prepares a picture for this network; ConfigError where no ClipSpec can say it."""
    sizes = {"img_size": settings["img_size"]} if isinstance(settings.get("img_size"), int) else {}
    if isinstance(settings.get("img_size"), (list, tuple)):
        sizes = {"input_size": (3, *settings["img_size"])}
    chosen = import_library("timm.data").resolve_model_data_config(network, sizes)
    (_, height, width), share, mode = chosen["input_size"], chosen["crop_pct"], chosen["crop_mode"]
    if chosen["interpolation"] not in _INTERPOLATION:
        raise ConfigError(f"timm resizes by {chosen['interpolation']!r}; clipact knows {', '.join(_INTERPOLATION)}")
    shape: dict[str, Any] = {"resize": "squash"}
    if mode == "center" and height == width:
        side = int(height / share)
        shape = {"shorter_side_pixels": None if side == height else side}
    elif mode != "squash" or share != 1:
        raise ConfigError(f"timm's crop_mode is {mode!r} at {share:g} for {height} x {width}; that is not known here")
    return ClipSpec(
        frames=1,
        size=(height, width),
        interpolation=_INTERPOLATION[chosen["interpolation"]],
        mean=tuple(map(float, chosen["mean"])),
        std=tuple(map(float, chosen["std"])),
        **shape,
    )


def _make(name: str, settings: Mapping[str, Any]) -> Any:
    timm = import_library("timm")

    if ":" in name or name.partition(".")[0] not in timm.list_models():
        near = difflib.get_close_matches(name, timm.list_models(), n=6, cutoff=0)
        raise ConfigError(f"timm has no network {name!r}; the nearest: {', '.join(near)}")
    try:
        network = timm.create_model(name, pretrained=False, num_classes=0, **dict(settings))
    except Exception as error:  # timm checks settings in many ways
        raise ConfigError(f"timm {timm.__version__} cannot make {name} with {dict(settings)}: {error}") from error
    return network
