"""Arithmetic on embeddings and logits as NumPy arrays: unit length, means, softmax."""

import numpy as np
from jaxtyping import Float32

from clipact.clip_spec import Averaging


def unit(features: Float32[np.ndarray, "... d"]) -> Float32[np.ndarray, "... d"]:
    """Return the vectors at unit length; one of zeros stays as it is."""
    lengths = np.sqrt(np.square(features).sum(-1, keepdims=True))
    return features / np.maximum(lengths, np.float32(1e-12))


def mean_clip(embeddings: Float32[np.ndarray, "k d"]) -> Float32[np.ndarray, " d"]:
    """Average the embeddings of a video's clips into one unit vector."""
    return unit(embeddings.mean(0))


def softmax(logits: Float32[np.ndarray, "... n"]) -> Float32[np.ndarray, "... n"]:
    """Return probabilities over the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def log_softmax(logits: Float32[np.ndarray, "... n"]) -> Float32[np.ndarray, "... n"]:
    """Return the logarithms of probabilities over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def averaged(embeddings: Float32[np.ndarray, "k d"], averaging: Averaging) -> Float32[np.ndarray, "j d"]:
    """Return the clips' mean as one unit vector for "embeddings"; for another averaging every clip's own."""
    return embeddings if averaging != "embeddings" or len(embeddings) == 1 else mean_clip(embeddings)[None]
