"""Evaluation of recognizers on labelled samples; metrics are computed elsewhere.

Files are decoded, encoded and kept in a journal, so that a run that was stopped goes on. Nothing is printed.
"""

from clipact.evaluate.encode import EvalOptions
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
