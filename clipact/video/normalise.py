"""From uint8 frames to the float tensor that a visual tower takes: the one file of this room that knows torch."""

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from clipact.clip_spec import ClipSpec


def normalise_frames(
    frames: UInt8[np.ndarray, "t h w c"], spec: ClipSpec, *, device: torch.device | str = "cpu"
) -> Float[Tensor, "t c h w"]:
    """The frames on a 0..1 scale, less `spec.mean`, over `spec.std`, per channel, in float32.

    On a CPU bit for bit what torchvision's ToTensor and Normalize give. Bytes go to the device, not floats.
    """
    # A copy: frames may be read-only, and torch cannot say so.
    pixels = torch.from_numpy(np.array(frames)).to(device)
    video = rearrange(pixels, "t h w c -> t c h w").contiguous().to(torch.float32).div_(255)
    mean = torch.tensor(spec.mean, dtype=torch.float32, device=device)
    std = torch.tensor(spec.std, dtype=torch.float32, device=device)
    return video.sub_(rearrange(mean, "c -> c 1 1")).div_(rearrange(std, "c -> c 1 1"))
