"""Probes of a model's embeddings, fitted to samples that have labels; `evaluate` judges them on others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clipact.classify.probe import KNNProbe, Probe, ProbeClassifier, draw_shots, fit_linear
from clipact.clip_spec import ClipSpec
from clipact.errors import UsageError
from clipact.evaluate.encode import EvalOptions, encode_samples
from clipact.evaluate.encoded_samples import EncodedSamples
from clipact.evaluate.encoder_adapter import make_clip_encoder
from clipact.evaluate.samples import EvalSample, EvalSamples, as_samples
from clipact.models.zoo import Model


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How a probe is fitted.

    kind      "linear": logistic regression; "nearest": the votes of the k nearest examples
    strength  of the linear probe: see `fit_linear`
    k         of the nearest
    shots     examples a label, drawn at random; all of them when None
    draws     how often that is done; without shots there is nothing to draw
    """

    kind: Literal["linear", "nearest"] = "linear"
    strength: float = 10.0
    k: int = 20
    shots: int | None = None
    draws: int = 1
    seed: int = 0


def fit_probes(
    model: Model,
    samples: EvalSamples | Sequence[EvalSample],
    probing: ProbeConfig = ProbeConfig(),
    *,
    spec: ClipSpec | None = None,
    clips: int = 1,
    options: EvalOptions | None = None,
) -> Iterator[ProbeClassifier]:
    """Fit a classifier of the samples' labels for each draw, on one encoding of the samples.

    `spec` and `clips` are as for `ZeroShotClassifier`, `options` as for `evaluate`: with a cache nothing is encoded
    twice.
    UsageError when a sample has no label, or a label too few samples; DataError when not one file can be read.
    """
    samples, options = as_samples(samples), options or EvalOptions()
    for item in samples.items:
        if item.label is None:
            raise UsageError(f"{item.name} has no label; a probe learns labels")
    labels = tuple(sorted({str(item.label) for item in samples.items}))
    clip_encoder = make_clip_encoder(model, spec or model.encoder.spec, views=clips)
    encoded = EncodedSamples.of(samples, encode_samples(samples, clip_encoder, options, {}))
    truth = np.array([labels.index(str(samples.items[i].label)) for i in encoded.rows], dtype=np.int64)
    rows = iter([np.arange(len(truth))])
    if probing.shots is not None:
        rows = draw_shots(truth, shots=probing.shots, draws=probing.draws, seed=probing.seed)
    for chosen in rows:
        probe = _fit(encoded.vectors[chosen], truth[chosen], labels=len(labels), probing=probing)
        yield ProbeClassifier(
            model,
            probe,
            labels,
            spec=clip_encoder.spec,
            clips=clips,
            supervision=f"a {probing.kind} probe of {len(chosen):,} examples",
            files_seen=frozenset(encoded.embeddings[encoded.rows[row]].digest for row in chosen),
        )


def _fit(vectors: np.ndarray, truth: np.ndarray, *, labels: int, probing: ProbeConfig) -> Probe:
    if probing.kind == "linear":
        return fit_linear(vectors, truth, labels=labels, C=probing.strength)
    return KNNProbe(vectors, truth, labels=labels, k=probing.k)
