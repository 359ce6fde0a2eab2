"""The loss of choosing one of a fixed list of answers, whichever of them a batch holds."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def cross_entropy(
    visual: Float[Tensor, "b d"],
    answers: Float[Tensor, "n d"],
    *,
    scale: Float[Tensor, ""],
    truth: Int[Tensor, " b"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """The mean over clips of -log softmax(scale x cosines with all n answers) at the true one.

    `label_smoothing` is the share of each target that is spread evenly over all answers. 16-bit vectors are raised to
    32 bits, and autocast has no say here.
    """
    with torch.autocast(visual.device.type, enabled=False):
        raised = (one.float() if one.dtype in (torch.float16, torch.bfloat16) else one for one in (visual, answers))
        clips, rows = raised
        return F.cross_entropy(scale * clips @ rows.T, truth, label_smoothing=label_smoothing)
