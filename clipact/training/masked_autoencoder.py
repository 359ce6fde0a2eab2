"""A masked autoencoder: a ViViT sees some of a clip's tokens, a small decoder fills in the pixels of the others.

MAE (arXiv 2111.06377) for single pictures, VideoMAE (arXiv 2203.12602) for clips. What is kept of it is the ViViT.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from clipact.errors import ConfigError
from clipact.losses import normalise_patches
from clipact.nn.attention import Block
from clipact.nn.masking import Mask
from clipact.nn.positions import sines
from clipact.towers.vivit import ViViT


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
        positions = sines(mask.visible.shape[1] + mask.masked.shape[1], seen.shape[2]).to(seen)
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
