"""Weight templates by unlabelled clips (ZPE, arXiv 2302.06235, section 3).

A template is good when its largest logit is large. But a template or a label whose words are frequent has large logits
for every clip: so what is expected of each template and label is subtracted first.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from clipact.errors import UsageError
from clipact.models.dual_encoder import DualEncoder

if TYPE_CHECKING:
    from clipact.classify.zero_shot import TextClassifier


@torch.inference_mode()
def template_weights(
    encoder: DualEncoder,
    vectors: "TextClassifier",
    clips: Float[Tensor, "b d"],
    *,
    reference: Float[Tensor, "r d"] | None = None,
    batch_size: int = 256,
) -> Float[Tensor, " p"]:
    """Weight each template, or plane of `vectors` (algorithm 2, as its authors' code has it); the weights sum to 1.

    With logits L[i, p, n] of clip i, template p and label n, scaled by the model's own scale:

        expected[p, n] = (mean over the reference of L + mean over the clips of L) / 2
        score[p]       = mean over the clips i of max over n of (L[i, p, n] - expected[p, n])
        weight         = softmax(score)

    `reference` stands for what the model learnt from: the authors take 20,000 pictures of LAION-400M. Without one,
    only the mean over the clips is taken away, which is their ablation "test".
    """
    if len(clips) == 0:
        raise UsageError("template weights need clips, with or without labels; there are none")

    def mean(of: Float[Tensor, "b d"]) -> Float[Tensor, "p n"]:
        sums = [vectors.plane_logits(encoder, batch).double().sum(0) for batch in torch.split(of, batch_size)]
        return torch.stack(sums).sum(0) / len(of)

    expected = mean(clips)
    if reference is not None:
        expected = (expected + mean(reference)) / 2
    best = [
        (vectors.plane_logits(encoder, batch).double() - expected).amax(2).sum(0)
        for batch in torch.split(clips, batch_size)
    ]
    return (torch.stack(best).sum(0) / len(clips)).softmax(0).float()
