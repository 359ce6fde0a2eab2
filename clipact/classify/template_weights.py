"""Weight templates by unlabelled clips (ZPE, arXiv 2302.06235, section 3).

A template is good when its largest logit is large. But a template or a label whose words are frequent has large logits
for every clip: so what is expected of each template and label is subtracted first.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, Float64

from clipact.classify.text_classifier import TextClassifier
from clipact.engines.engine import Engine
from clipact.errors import UsageError


def template_weights(
    engine: Engine,
    vectors: TextClassifier,
    clips: Float32[np.ndarray, "b d"],
    *,
    reference: Float32[np.ndarray, "r d"] | None = None,
    batch_size: int = 256,
) -> Float32[np.ndarray, " p"]:
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

    def logits(of: Float32[np.ndarray, "m d"]) -> Iterator[Float64[np.ndarray, "b p n"]]:
        for start in range(0, len(of), batch_size):
            yield vectors.plane_logits(engine, of[start : start + batch_size]).astype(np.float64)

    def mean(of: Float32[np.ndarray, "m d"]) -> Float64[np.ndarray, "p n"]:
        total: Float64[np.ndarray, "p n"] = np.sum([batch.sum(0) for batch in logits(of)], axis=0)
        return total / len(of)

    expected = mean(clips)
    if reference is not None:
        expected = (expected + mean(reference)) / 2
    best: Float64[np.ndarray, " p"] = np.sum([(batch - expected).max(2).sum(0) for batch in logits(clips)], axis=0)
    weights = np.exp((best - best.max()) / len(clips))
    return (weights / weights.sum()).astype(np.float32)
