"""Evaluation: what a recogniser says of samples whose truth is known. Figures are made elsewhere.

This room decodes, encodes, keeps a journal of what it has found, and takes up where it was stopped. It prints nothing.
"""

from clipact.evaluate.options import EvalOptions
from clipact.evaluate.run import evaluate, evaluate_retrieval, evaluate_wordings
from clipact.evaluate.samples import EvalSample, EvalSamples, manifest_protocol, read_samples

__all__ = [
    "EvalOptions",
    "EvalSample",
    "EvalSamples",
    "evaluate",
    "evaluate_retrieval",
    "evaluate_wordings",
    "manifest_protocol",
    "read_samples",
]
