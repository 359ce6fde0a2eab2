"""What a masked autoencoder makes of clips, as a picture: the frames, what it saw of them, and what it filled in."""

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clipact.errors import TrainingError
from clipact.losses import patch_moments, pick_patches
from clipact.nn.masking import Mask
from clipact.replacing import replacing
from clipact.training.masked_autoencoder import MaskedAutoencoder

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
        with replacing(path) as file:
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
