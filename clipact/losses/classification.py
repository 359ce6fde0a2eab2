"""Cross-entropy over a fixed list of labels, and distillation from teachers' similarities."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def cross_entropy(
    visual: Float[Tensor, "b d"],
    class_embeddings: Float[Tensor, "n d"],
    *,
    scale: Float[Tensor, ""],
    truth: Int[Tensor, " b"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """The mean over clips of -log softmax(scale x cosines with all n labels) at the true one.

    `label_smoothing` is the share of each target that is spread evenly over all labels. 16-bit vectors are raised to
    32 bits, and autocast has no say here.
    """
    with torch.autocast(visual.device.type, enabled=False):
        raised = (
            one.float() if one.dtype in (torch.float16, torch.bfloat16) else one for one in (visual, class_embeddings)
        )
        clips, rows = raised
        return F.cross_entropy(scale * clips @ rows.T, truth, label_smoothing=label_smoothing)


Targets = tuple[Float[Tensor, "b b"], Float[Tensor, "b b"]]
"""Probabilities, each row's over the batch: of texts for a clip, and of clips for a text."""


def distillation_loss(
    visual: Float[Tensor, "b d"], text: Float[Tensor, "b d"], *, scale: Float[Tensor, ""], targets: Targets
) -> Float[Tensor, ""]:
    """The mean over both directions of the cross-entropy from the teachers' softmax over the batch to the pupil's.

    Affinity mimicking (TinyCLIP, arXiv 2309.12314, eq. 4 and 5), and the distilling part of MobileCLIP's loss (arXiv
    2311.17049, eq. 2) but for the teachers' own entropy, which has no gradient. The b x b logits are formed. 16-bit
    vectors are raised to 32 bits, and autocast has no say here.
    """
    with torch.autocast(visual.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(visual.dtype, text.dtype), torch.float32)
        logits = scale.to(dtype) * visual.to(dtype) @ text.to(dtype).T
        by_visual, by_text = (target.to(dtype) for target in targets)
        return (F.cross_entropy(logits, by_visual) + F.cross_entropy(logits.T, by_text)) / 2
