"""The engine's job in a dozen lines: load the clips of a row, encode each by itself. Tests compare with it.

Also the small towers that are compared: frame by frame, with frames that see their neighbours, and whole clips.
"""

from dataclasses import fields, replace
from functools import cache

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from clipact.clip_spec import ClipSpec, FrameStamp
from clipact.embed.embed_clips import embed_clips
from clipact.embed.options import EmbedOptions
from clipact.engines.torch_clip_encoder import make_clip_encoder
from clipact.models.dual_encoder import DualEncoder, normalise_frames
from clipact.models.towers.efficientnet_lite import EfficientNetLite
from clipact.models.towers.frame_aggregator import FrameAggregator
from clipact.models.towers.i3d import I3D
from clipact.models.towers.tower import Head, ImageTower
from clipact.models.towers.vivit import ViViT
from clipact.video.load import load_clips
from tests.tiny import TinyText, TinyVisual

DIM = 6
SPEC = ClipSpec(frames=4, size=(32, 32))


class TinyImage(ImageTower):
    """The mean colours of a picture's quarters, through a linear layer: as quick as a tower can be."""

    def __init__(self) -> None:
        super().__init__()
        self.spec, self.dim = SPEC, DIM
        self.linear = nn.Linear(12, DIM)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        quarters = rearrange(images, "b c (y h) (x w) -> b (c y x) (h w)", y=2, x=2).mean(2)
        return self.linear(quarters)


class TinyConvolutions(ImageTower):
    """Two convolutions and the mean of what they give, through a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.spec, self.dim = SPEC, DIM
        convolutions = nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU()
        self.layers = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, DIM))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        return self.layers(images)


def _efficientnet() -> EfficientNetLite:
    return EfficientNetLite(EfficientNetLite.Config(variant="lite0", head=Head.Config(dim=DIM, hidden=8)))


TOWERS = {
    "efficientnet": lambda: FrameAggregator(_efficientnet(), spec=SPEC),
    "frames": lambda: FrameAggregator(TinyConvolutions(), spec=SPEC),
    "quick frames": lambda: FrameAggregator(TinyImage(), spec=SPEC),
    "shifted frames": lambda: FrameAggregator(_efficientnet(), FrameAggregator.Config(shift=0.125), spec=SPEC),
    "mean colour": lambda: TinyVisual(DIM, SPEC),
    "vivit": lambda: ViViT(
        ViViT.Config(width=16, heads=2, layers=1, hidden=16, head=Head.Config(dim=DIM, blocks=0)), spec=SPEC
    ),
    "i3d": lambda: I3D(I3D.Config(head=Head.Config(dim=DIM, blocks=0)), spec=replace(SPEC, frames=8)),
}
"""Towers by what they are; "mean colour", "vivit" and "i3d" see whole clips."""


@cache
def dual_encoder(tower: str) -> DualEncoder:
    """The model with this tower; always the same random weights."""
    torch.manual_seed(0)
    return DualEncoder(TOWERS[tower](), TinyText(DIM)).eval()


def clip_encoder(tower: str, *, spec: ClipSpec | None = None, clips: int = 1, crops: int = 1):
    """What the engine is given."""
    return make_clip_encoder(dual_encoder(tower), f"the weights of {tower}", spec=spec, clips=clips, crops=crops)


@torch.inference_mode()
def embed_straight(tower, row, *, spec=None, clips=1, crops=1, **options):
    """Unit vectors (k, d) of a row's clips; `options` go to `load_clips`."""
    model = dual_encoder(tower)
    spec = spec or model.spec
    span = {"start_seconds": row.start_seconds, "end_seconds": row.end_seconds}
    loaded = load_clips(row.source, spec, clips=clips, crops=crops, **span, **options)
    return np.concatenate([model.encode_video(normalise_frames(clip.frames, spec)[None]).numpy() for clip in loaded])


def embed(rows, request, **options):
    """One thread a worker unless told otherwise: the number decides how sums are rounded."""
    return list(embed_clips(rows, request, EmbedOptions(**({"threads": 1} | options))))


def counting(encoder, seen):
    """The encoder, which appends each batch that it encodes to `seen`."""

    def encode(clips):
        seen.append(clips)
        return encoder.encode(clips)

    return replace(encoder, encode=encode)


def everything(found):
    """All that a row was found to be, arrays as bytes: for comparisons bit for bit."""

    def plain(value):
        if isinstance(value, np.ndarray):
            return value.dtype.str, value.shape, value.tobytes()
        if isinstance(value, tuple):
            return tuple(map(plain, value))
        return (value.index, value.seconds) if isinstance(value, FrameStamp) else value

    return [{field.name: plain(getattr(one, field.name)) for field in fields(one)} for one in found]
