"""Towers by name, and the tables that a checkpoint's config.json keeps of them.

A table names its tower under "tower"; the other keys are the tower's Config. A new tower is one file and one line here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from clipact.clip_spec import ClipSpec
from clipact.config import parse, to_table
from clipact.errors import ConfigError, ModelError, choices
from clipact.models.hub.open_clip import OpenClipImage, OpenClipText
from clipact.models.hub.timm import TimmImage
from clipact.models.hub.transformers import TransformersImage, TransformersText
from clipact.models.hub.transformers_video import TransformersVideo
from clipact.models.hub.xclip import XClip
from clipact.models.towers.attention_pool import AttentionPoolTower
from clipact.models.towers.efficientnet_lite import EfficientNetLite
from clipact.models.towers.frame_aggregator import FrameAggregator
from clipact.models.towers.i3d import I3D
from clipact.models.towers.label_embeddings import LabelEmbeddings
from clipact.models.towers.swin3d import Swin3D
from clipact.models.towers.text import TOKENIZER, BertText
from clipact.models.towers.tower import ImageTower, TextTower, VisualTower
from clipact.models.towers.vivit import ViViT

IMAGE_TOWERS: dict[str, Any] = {
    "efficientnet_lite": EfficientNetLite,
    "open_clip": OpenClipImage,
    "transformers": TransformersImage,
    "timm": TimmImage,
}
VIDEO_TOWERS: dict[str, Any] = {
    "frame_aggregator": FrameAggregator,
    "attention_pool": AttentionPoolTower,
    "vivit": ViViT,
    "swin3d": Swin3D,
    "i3d": I3D,
    "xclip": XClip,
    "transformers": TransformersVideo,
}
BY_FRAME = (FrameAggregator, AttentionPoolTower)
"""Those that have an image tower inside: their tables have its own, under "image"."""
TEXT_TOWERS: dict[str, Any] = {
    "bert": BertText,
    "open_clip": OpenClipText,
    "transformers": TransformersText,
    "label_embeddings": LabelEmbeddings,
}

AnyTower = TypeVar("AnyTower")


def image_from(table: Mapping[str, Any]) -> ImageTower:
    """The image tower that a table names, with fresh weights; ConfigError when it names none."""
    kind, settings = _look_up(IMAGE_TOWERS, table, "visual.image.")
    return kind(parse(kind.Config, settings, where="visual.image."))


def visual_from(table: Mapping[str, Any], spec: ClipSpec) -> VisualTower:
    """The video tower that a table names, with fresh weights, fed as `spec` says; ConfigError when it names none."""
    kind, settings = _look_up(VIDEO_TOWERS, table, "visual.")
    image = (image_from(settings.pop("image", {})),) if kind in BY_FRAME else ()
    return kind(*image, parse(kind.Config, settings, where="visual."), spec=spec)


def text_from(table: Mapping[str, Any], folder: Path) -> TextTower:
    """The text tower that a table names, with fresh weights and the tokenizer in `folder`."""
    kind, settings = _look_up(TEXT_TOWERS, table, "text.")
    return kind(parse(kind.Config, settings, where="text."), folder / TOKENIZER)


def check_tables(visual: Mapping[str, Any], text: Mapping[str, Any]) -> None:
    """Nothing; ConfigError when the tables name no towers, or hold settings that these do not have. None is made."""
    kind, settings = _look_up(VIDEO_TOWERS, visual, "visual.")
    tables = [(IMAGE_TOWERS, settings.pop("image", {}), "visual.image.")] if kind in BY_FRAME else []
    parse(kind.Config, settings, where="visual.")
    for kinds, table, where in [*tables, (TEXT_TOWERS, text, "text.")]:
        kind, settings = _look_up(kinds, table, where)
        parse(kind.Config, settings, where=where)


def describe(tower: nn.Module) -> dict[str, Any]:
    """The table from which the tower can be made again; ModelError when it is none of ours."""
    for table in (IMAGE_TOWERS, VIDEO_TOWERS, TEXT_TOWERS):
        for name in (name for name, kind in table.items() if type(tower) is kind):
            inner = {"image": describe(tower.image)} if isinstance(tower, BY_FRAME) else {}
            return {"tower": name, **inner, **to_table(tower.config)}
    raise ModelError(f"a {type(tower).__name__} cannot be saved: it is not in a table of clipact.models.towers")


def _look_up(
    kinds: Mapping[str, type[AnyTower]], table: Mapping[str, Any], where: str
) -> tuple[type[AnyTower], dict[str, Any]]:
    name = str(table.get("tower"))
    if name not in kinds:
        raise ConfigError(f"{where}tower is {name!r}; {choices(name, kinds)}")
    return kinds[name], {key: value for key, value in table.items() if key != "tower"}
