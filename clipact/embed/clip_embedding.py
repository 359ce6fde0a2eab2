"""The views of one video become unit vectors, and an answer gets the ledger of what was looked at.

What every classifier does with a video, whatever it then compares it with.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from clipact.clip_spec import ClipSpec
from clipact.models.dual_encoder import DualEncoder, normalise_frames


def prepare_views(
    views: Sequence[UInt8[np.ndarray, "t h w c"]], spec: ClipSpec, *, device: torch.device
) -> Float[Tensor, "k t c h w"]:
    """Frames that fit the spec, as the visual tower takes them."""
    return torch.stack([normalise_frames(frames, spec, device=device) for frames in views])


@torch.inference_mode()
def embed_views(
    encoder: DualEncoder, views: Sequence[UInt8[np.ndarray, "t h w c"]], spec: ClipSpec
) -> Float[Tensor, "k d"]:
    """A unit vector a view."""
    return encoder.encode_video(prepare_views(views, spec, device=encoder.log_scale.device))


def mean_view(embeddings: Float[Tensor, "k d"]) -> Float[Tensor, "1 d"]:
    """The one vector of a video: the mean of its views', made unit again."""
    return F.normalize(embeddings.mean(0, keepdim=True), dim=-1)
