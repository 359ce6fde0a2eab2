"""Masked autoencoder (VideoMAE, arXiv 2203.12602): its masks, its decoder, and pictures of what it fills in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor, nn

from clipact.atomic_write import atomic_write
from clipact.errors import ConfigError, TrainingError
from clipact.losses import normalise_patches, patch_moments, pick_patches
from clipact.models.nn.attention import Block, sinusoidal_positions
from clipact.models.towers.vivit import ViViT


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Numbers of tokens, step by step and in each step row by row, in rising order; each stands in one of the two."""

    visible: Int64[Tensor, "b v"]
    masked: Int64[Tensor, "b m"]


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """How much is masked, and where.

    kind   "tube": the same places in every step, so that no step gives away the next (VideoMAE, arXiv 2203.12602,
           section 3.3); "random": any tokens (MAE, arXiv 2111.06377, section 3)
    ratio  the share that is masked: 0.9 to 0.95 suits tubes, 0.75 single pictures
    """

    kind: Literal["tube", "random"] = "tube"
    ratio: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ConfigError(f"mask.ratio is {self.ratio:g}; it lies between 0 and 1")


def draw_mask(config: MaskConfig, *, clips: int, steps: int, places: int, generator: torch.Generator) -> Mask:
    """A mask of each clip's `steps` x `places` tokens, as many tokens masked in each: the share nearest to the ratio.

    ConfigError where that is none of them, or all.
    """
    among = places if config.kind == "tube" else steps * places
    count = round(config.ratio * among)
    if not 0 < count < among:
        what = "places" if config.kind == "tube" else "tokens"
        raise ConfigError(
            f"mask.ratio is {config.ratio:g}, which masks {count} of {among} {what}; at least one is masked and one "
            "seen: take another ratio, or smaller patches"
        )
    order = torch.rand(clips, among, generator=generator).argsort(dim=1)
    first = torch.arange(steps) * places if config.kind == "tube" else torch.zeros(1, dtype=torch.int64)

    def numbers(chosen: Int64[Tensor, "b l"]) -> Int64[Tensor, "b n"]:
        inside = rearrange(chosen.sort(dim=1).values, "b l -> b 1 l")
        return rearrange(rearrange(first, "t -> t 1") + inside, "b t l -> b (t l)")

    return Mask(visible=numbers(order[:, count:]), masked=numbers(order[:, :count]))


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The decoder's size: small beside the encoder's, for it is thrown away (VideoMAE: half the width, 4 layers)."""

    width: int = 96
    layers: int = 4
    heads: int = 3
    hidden: int = 384

    def __post_init__(self) -> None:
        if min(self.width, self.heads, self.hidden) < 1 or self.layers < 0 or self.width % (2 * self.heads):
            raise ConfigError(
                f"decoder.width is {self.width}, heads {self.heads}, hidden {self.hidden}, layers {self.layers}; "
                "none is below 1 (layers: 0), and heads and 2 together divide the width"
            )


class MaskedAutoencoder(nn.Module):
    """A joint ViViT without class token, and its decoder, after transformers' and the authors' VideoMAE.

    The encoder's last norm belongs to the decoder's side: fine-tuning begins from the tokens before it, as the authors'
    does, and puts a norm of its own after their mean.
    """

    def __init__(self, encoder: ViViT, config: DecoderConfig) -> None:
        super().__init__()
        sizes = encoder.config
        if sizes.class_token != "none":
            raise ConfigError(
                f"encoder.class_token is {sizes.class_token!r}; a masked autoencoder's is 'none', with "
                "attention 'joint'"
            )
        self.encoder = encoder
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.norm_eps)
        self.narrow = nn.Linear(sizes.width, config.width, bias=False)
        self.mask_token = nn.Parameter(0.02 * torch.randn(config.width))
        self.decoder = nn.Sequential(
            *(
                Block(
                    config.width,
                    heads=config.heads,
                    hidden=config.hidden,
                    activation=sizes.activation,
                    norm_eps=sizes.norm_eps,
                )
                for _ in range(config.layers)
            )
        )
        self.norm_decoded = nn.LayerNorm(config.width)
        self.paint = nn.Linear(config.width, encoder.embed.in_features)

    def forward(self, video: Float[Tensor, "b t c h w"], mask: Mask) -> Float[Tensor, "b m p"]:
        """The normalised pixels of the masked patches, in their order, as far as the visible ones tell them."""
        seen = self.narrow(self.norm(self.encoder.encode_visible(video, mask.visible)))
        positions = sinusoidal_positions(mask.visible.shape[1] + mask.masked.shape[1], seen.shape[2]).to(seen)
        asked = self.mask_token + positions[mask.masked]
        decoded = self.decoder(torch.cat([seen + positions[mask.visible], asked], dim=1))
        return self.paint(self.norm_decoded(decoded[:, mask.visible.shape[1] :]))

    def pixels(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b n p"]:
        """The patches of a normalised clip on a 0..1 scale, a channel after the other."""
        mean, std = (torch.tensor(of, device=video.device) for of in (self.encoder.spec.mean, self.encoder.spec.std))
        shown = video * rearrange(std, "c -> c 1 1") + rearrange(mean, "c -> c 1 1")
        return rearrange(self.encoder.patches(shown), "b t l p -> b (t l) p")

    def target(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b n p"]:
        """What is to be predicted of every patch, masked or not."""
        return normalise_patches(self.pixels(video), channels=video.shape[2])


_GREY, _MARGIN_PIXELS = 0.5, 4


@torch.no_grad()
def draw_reconstruction(
    model: MaskedAutoencoder, video: Float[Tensor, "b t c h w"], mask: Mask, predicted: Float[Tensor, "b m p"]
) -> Image.Image:
    """Three rows a clip: its frames, what was visible, and that with the masked patches as `predicted` by the model.

    Shapes are predicted, not brightness: a predicted patch is shown with the true one's mean and deviation, as MAE's
    authors show theirs.
    """
    pixels = model.pixels(video)
    mean, deviation = patch_moments(pixels, channels=video.shape[2])
    where = mask.masked[..., None].expand(-1, -1, pixels.shape[2])
    painted = predicted.float() * pick_patches(deviation, mask.masked) + pick_patches(mean, mask.masked)
    rows = (pixels, pixels.scatter(1, where, _GREY), pixels.scatter(1, where, painted))
    pictures = [_frames(model, patches, video) for patches in rows]
    stacked = rearrange(torch.stack(pictures, dim=1), "b r t c h w -> (b r) t h w c").clamp(0, 1)
    return _sheet((stacked * 255).round().to(torch.uint8).cpu().numpy())


def write_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG beside `path`, then rename it; TrainingError when the disk refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            picture.save(file, format="PNG")
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror or error}") from error


def _frames(
    model: MaskedAutoencoder, patches: Float[Tensor, "b n p"], video: Float[Tensor, "b t c h w"]
) -> Float[Tensor, "b t c h w"]:
    sizes = model.encoder.config
    return rearrange(
        patches,
        "b (t h w) (c u p q) -> b (t u) c (h p) (w q)",
        h=video.shape[3] // sizes.patch,
        w=video.shape[4] // sizes.patch,
        u=sizes.tubelet,
        p=sizes.patch,
        q=sizes.patch,
    )


def _sheet(rows: np.ndarray) -> Image.Image:
    """Frames side by side, rows below each other, on white."""
    count, frames, height, width, _ = rows.shape
    down, across = height + _MARGIN_PIXELS, width + _MARGIN_PIXELS
    sheet = Image.new("RGB", (frames * across + _MARGIN_PIXELS, count * down + _MARGIN_PIXELS), "white")
    for row in range(count):
        for frame in range(frames):
            place = (_MARGIN_PIXELS + frame * across, _MARGIN_PIXELS + row * down)
            sheet.paste(Image.fromarray(rows[row, frame]), place)
    return sheet
