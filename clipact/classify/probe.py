"""A probe as a classifier: a frozen model's embedding of a clip, and a probe's labels for it."""

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Float32, Int64

from clipact.classify.base import VideoClassifier
from clipact.classify.embedding_recognizer import RecognizerFacts
from clipact.classify.prediction import Prediction, agreement_of
from clipact.clip_spec import Averaging, ClipSpec
from clipact.engines.engine import Engine
from clipact.engines.vectors import mean_clip, softmax
from clipact.errors import UsageError

Vectors = Float32[np.ndarray, "n d"]
LabelIds = Int64[np.ndarray, " n"]


class Probe(ABC):
    """What was fitted to vectors of `dim` numbers and knows so many labels, by their numbers."""

    labels: int
    dim: int

    @abstractmethod
    def logits(self, vectors: Vectors) -> Float32[np.ndarray, "n l"]:
        """Of each vector for each label."""


class LinearProbe(Probe):
    """Logits W x + b, one a label."""

    def __init__(self, weight: Float32[np.ndarray, "l d"], bias: Float32[np.ndarray, " l"]) -> None:
        self.weight, self.bias = weight, bias
        self.labels, self.dim = weight.shape

    def logits(self, vectors: Vectors) -> Float32[np.ndarray, "n l"]:
        """Of each vector for each label."""
        return vectors @ self.weight.T + self.bias


class KNNProbe(Probe):
    """Weighted k-nearest neighbours (arXiv 1805.01978, section 3.4): each of k votes with exp(cosine / temperature).

    Logits are the logarithms of the labels' shares in the votes; a label without a vote has the least share that there
    can be. Of fewer than k examples all vote.
    """

    def __init__(
        self, vectors: Vectors, truth: LabelIds, *, labels: int, k: int = 20, temperature: float = 0.07
    ) -> None:
        check_examples(vectors, truth, labels)
        if k < 1 or temperature <= 0:
            raise UsageError(
                f"k is {k} and temperature {temperature:g}; at least one neighbour votes, and temperature is above 0"
            )
        self.vectors, self.truth, self.k, self.temperature = vectors, truth, k, temperature
        self.labels, self.dim = labels, vectors.shape[1]

    def logits(self, vectors: Vectors) -> Float32[np.ndarray, "n l"]:
        """Of each vector for each label."""
        cosines = vectors @ self.vectors.T
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : self.k]
        near = np.take_along_axis(cosines, nearest, axis=1)
        votes = np.exp((near - near.max(1, keepdims=True)) / self.temperature)
        shares = np.zeros((len(vectors), self.labels))
        np.add.at(shares, (np.arange(len(vectors))[:, None], self.truth[nearest]), votes)
        shares /= shares.sum(1, keepdims=True)
        return np.log(np.maximum(shares, np.finfo(np.float32).tiny)).astype(np.float32)


def check_examples(vectors: Vectors, truth: LabelIds, labels: int) -> None:
    """Raise UsageError unless there is a label number, 0..labels-1, for each vector, and one vector at least."""
    if len(vectors) != len(truth) or len(truth) == 0:
        raise UsageError(
            f"there are {len(vectors)} vectors and {len(truth)} label numbers; give one each, at least one"
        )
    if truth.min() < 0 or truth.max() >= labels:
        raise UsageError(f"label numbers go to {truth.max()}; there are {labels} labels, counted from 0")


class ProbeClassifier(VideoClassifier):
    """Names the action in a clip by a probe that learnt its labels from examples; satisfies `Recognizer`.

    model        what `clipact.models.zoo.load_model` gives: the one whose embeddings the probe was fitted to
    probe        as `clipact.evaluate.fit_probes.fit_probes` makes it
    labels       in the order of the probe's numbers; UsageError when they are not as many
    spec         how clips are prepared, and `clips` a video, as they were for the probe
    supervision  how the probe learnt, in words
    files_seen   the sha256 of the files that it learnt from
    """

    def __init__(
        self,
        model: Engine,
        probe: Probe,
        labels: tuple[str, ...],
        *,
        spec: ClipSpec | None = None,
        clips: int = 1,
        decoder: str = "pyav",
        supervision: str = "a probe",
        files_seen: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(spec or model.spec, clips=clips, decoder=decoder)
        if len(labels) != probe.labels or model.dim != probe.dim:
            raise UsageError(
                f"{len(labels)} labels and embeddings of {model.dim} numbers, but the probe knows "
                f"{probe.labels} labels by {probe.dim} numbers"
            )
        self.model, self.probe, self._labels = model, probe, labels
        self.supervision, self.files_seen = supervision, files_seen

    @property
    def engine(self) -> Engine:
        """The model."""
        return self.model

    @property
    def labels(self) -> tuple[str, ...]:
        """What it chooses from."""
        return self._labels

    averagings: tuple[Averaging, ...] = ("embeddings",)

    def adapt(self, embeddings: Float32[np.ndarray, "n k d"]) -> "ProbeClassifier":
        """Return the classifier itself: nothing is estimated from unlabelled clips."""
        return self

    def score(self, embeddings: Float32[np.ndarray, "n k d"], *, averaging: Averaging) -> Float32[np.ndarray, "n l"]:
        """Return the probe's logits of n videos, whose views were averaged: k is 1."""
        return self.probe.logits(embeddings[:, 0])

    def facts(self) -> RecognizerFacts:
        """Return what an evaluation's record says of the model, and of what the probe learnt from."""
        return RecognizerFacts(model=self.model, supervision=self.supervision, files_seen=self.files_seen)

    def answer(self, embeddings: Float32[np.ndarray, "k d"]) -> Prediction:
        """Return the prediction for one video, from the mean of its clips' embeddings; it names no prompts."""
        mean = embeddings if len(embeddings) == 1 else mean_clip(embeddings)[None]
        logits = self.probe.logits(np.concatenate([mean, embeddings]))
        scores = softmax(logits[0])
        return Prediction(
            labels=self.labels,
            scores=scores,
            model=f"probe of {self.model.name}",
            prompts="",
            agreement=agreement_of(logits[1:], self.labels, answer=self.labels[int(scores.argmax())]),
        )
