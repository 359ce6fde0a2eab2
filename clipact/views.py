"""The views of one video become unit vectors, and an answer gets the ledger of what was looked at.

What every classifier does with a video, whatever it then compares it with.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from clipact.clip_spec import ClipSpec
from clipact.dual_encoder import DualEncoder
from clipact.errors import UsageError
from clipact.prediction import Agreement, Prediction
from clipact.video.ahead import Decoded
from clipact.video.normalise import normalise_frames
from clipact.video.transforms import fit_frame


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


def fit_frames(frames: UInt8[np.ndarray, "t h0 w0 c"], spec: ClipSpec) -> UInt8[np.ndarray, "t h w c"]:
    """Frames of any size as the spec wants them; UsageError when they are no frames."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0 or frames.dtype != np.uint8:
        raise UsageError(
            f"frames are {frames.dtype} of shape {frames.shape}; wanted uint8 of shape (t, h, w, 3), t >= 1"
        )
    return np.stack([fit_frame(frame, spec) for frame in frames])


def frames_of(decoded: Decoded) -> list[UInt8[np.ndarray, "t h w c"]]:
    """The frames of each view; raises the error that stands in their place."""
    if decoded.error is not None:
        raise decoded.error
    return [clip.frames for clip in decoded.clips]


def with_ledger(prediction: Prediction, decoded: Decoded) -> Prediction:
    """The prediction with the file, and the frames of it that were looked at."""
    first = decoded.clips[0]
    return replace(
        prediction,
        video=decoded.source,
        duration_seconds=first.duration_seconds,
        decoder=first.decoder,
        frames=tuple(stamp for clip in decoded.clips for stamp in clip.stamps),
        notes=tuple(dict.fromkeys((*(note for clip in decoded.clips for note in clip.notes), *prediction.notes))),
    )


def agreement_of(logits: Float[Tensor, "k n"], labels: Sequence[str], *, answer: str) -> Agreement | None:
    """How far the views of a video agree, from the logits of each; None for a single view."""
    if len(logits) < 2:
        return None
    logs = logits.float().cpu().double().log_softmax(1)  # mps has no 64 bits
    shares = logs.exp()
    mean = shares.mean(0)
    information = (shares * logs).sum(1).mean() - torch.special.xlogy(mean, mean).sum()
    best = tuple(labels[i] for i in logits.argmax(1).tolist())
    return Agreement(
        views=best, agreeing=best.count(answer), difference_bits=max(0.0, float(information) / math.log(2))
    )
