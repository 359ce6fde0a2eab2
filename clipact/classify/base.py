"""Base of all classifiers: the `Recognizer` protocol, predictions, and what turns files into views of a video.

A `VideoClassifier` takes a file or a part of it, many files, or frames that are decoded already; a subclass is given
the frames of a video's views. Importing this file does not import torch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from clipact.clip_spec import ClipSpec, FrameStamp
from clipact.errors import UsageError, VideoError
from clipact.video.collect import check_decoder
from clipact.video.load import Decoded, decode_ahead, decode_one
from clipact.video.transforms import fit_frame

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Scored:
    """A label and its probability."""

    label: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What the labels that were not retrieved hold of the softmax over all labels.

    share   of them together, 0..1
    error   the standard error of `share` where it was estimated from a sample; 0 where all labels were looked at
    labels  how many they are
    """

    share: float
    error: float
    labels: int


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far the views of one video say the same: the model's own uncertainty in time.

    views            the best label of each view by itself, in the order of time
    agreeing         how many of them are the answer
    difference_bits  the mutual information of label and view: 0 when all views give the same scores, at most log2 of
                     their number (BALD, arXiv 1112.5745, with views in the place of networks)
    """

    views: tuple[str, ...]
    agreeing: int
    difference_bits: float


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What a calibration adds to an answer.

    none_of_these  whether the clip fits none of the labels: `in_set_score`, a score by the name `score`, is below
                   `threshold`, as it is for a share of clips that fit: `false_rejection_rate`
    label_set      the labels that could be right, likeliest first: they hold the right one in `coverage` of clips
    """

    none_of_these: bool
    in_set_score: float
    threshold: float
    score: str
    false_rejection_rate: float
    label_set: tuple[str, ...]
    coverage: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Labels ranked for one clip.

    ranked            best first; the scores are a softmax over ALL labels, cut to the best afterwards (where labels
                      are judged one by one they are independent, and do not sum to 1)
    video             the file, or None when frames were given
    model, prompts    names of the model and the prompt set that answered; prompts is "" of a supervised model
    duration_seconds  of the video, None when unknown
    decoder           what decoded the frames, None when frames were given
    frames            the ledger of the frames that were looked at
    notes             what a reader should know: frames repeated, a file cut short
    outside           of a label index: what the labels hold that are not in `ranked`; None when all are
    agreement         of the views, when there are several
    trust             what a calibration makes of it, when there is one
    accepted          where labels are judged one by one: those that fit by themselves, likeliest first
    """

    ranked: tuple[Scored, ...]
    model: str
    prompts: str
    video: str | None = None
    duration_seconds: float | None = None
    decoder: str | None = None
    frames: tuple[FrameStamp, ...] = ()
    notes: tuple[str, ...] = ()
    outside: Outside | None = None
    agreement: Agreement | None = None
    trust: Trust | None = None
    accepted: tuple[str, ...] | None = None

    @property
    def none_of_these(self) -> bool:
        """Whether no label fits, as far as a calibration, or labels judged one by one, can tell."""
        return self.accepted == () if self.trust is None else self.trust.none_of_these

    @property
    def label(self) -> str:
        """The best label."""
        return self.ranked[0].label

    @property
    def score(self) -> float:
        """The probability of the best label, 0..1."""
        return self.ranked[0].score

    def top(self, k: int) -> tuple[Scored, ...]:
        """The best k, or all when there are fewer."""
        return self.ranked[:k]

    def __str__(self) -> str:
        lines = [self.video or "frames", *(["  none of these"] if self.none_of_these else [])]
        width = max(len(entry.label) for entry in self.ranked[:5])
        lines += [f"  {entry.label:<{width}}  {entry.score:6.1%}" for entry in self.ranked[:5]]
        if len(self.ranked) > 5:
            lines.append(f"  … and {len(self.ranked) - 5} more")
        return "\n".join(lines)


@runtime_checkable
class Recognizer(Protocol):
    """Anything that names the action in a clip: zero-shot or trained on its labels."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What it chooses from, in a fixed order."""

    def classify(self, path: str | Path) -> Prediction:
        """The prediction for one file; VideoError when it cannot be read."""

    def classify_frames(self, frames: UInt8[np.ndarray, "t h w c"]) -> Prediction:
        """The prediction for frames already decoded, RGB."""

    def classify_many(self, paths: Iterable[str | Path]) -> Iterator[Prediction | VideoError]:
        """A prediction a path, in order; the VideoError in its place when one cannot be read."""


class VideoClassifier(ABC):
    """Looks at `clips` clips of a video, prepared as `spec` says, and answers; satisfies `Recognizer`."""

    def __init__(self, spec: ClipSpec, *, clips: int, decoder: str) -> None:
        if clips < 1:
            raise UsageError(f"clips is {clips}; a video has at least 1")
        check_decoder(decoder)
        self.spec, self.clips, self.decoder = spec, clips, decoder

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """What it chooses from, as they were given."""

    @abstractmethod
    def answer(self, views: Sequence[UInt8[np.ndarray, "t h w c"]]) -> Prediction:
        """The prediction for the views of one video, whose frames fit `spec`."""

    def classify(
        self, path: str | Path, *, start_seconds: float | None = None, end_seconds: float | None = None
    ) -> Prediction:
        """The prediction for one file, or for a part of it; VideoError when it cannot be read."""
        span = {"start_seconds": start_seconds, "end_seconds": end_seconds}
        return self.classify_decoded(decode_one(path, self.spec, clips=self.clips, decoder=self.decoder, **span))

    def classify_frames(self, frames: UInt8[np.ndarray, "t h w c"]) -> Prediction:
        """The prediction for frames that are decoded already, RGB, of any size: all of them are used."""
        return self.answer([fit_frames(frames, self.spec)])

    def classify_many(self, paths: Iterable[str | Path], **span: Any) -> Iterator[Prediction | VideoError]:
        """A prediction a path, in order, decoding ahead; where a file cannot be read its VideoError stands instead.

        `span` may hold start_seconds and end_seconds, for all of them.
        """
        for decoded in decode_ahead(paths, self.spec, clips=self.clips, decoder=self.decoder, **span):
            yield decoded.error or self.classify_decoded(decoded)

    def classify_decoded(self, decoded: Decoded) -> Prediction:
        """The prediction for clips that were decoded as `spec` says; raises the error that stands in them."""
        return with_ledger(self.answer(frames_of(decoded)), decoded)


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


def agreement_of(logits: "torch.Tensor", labels: Sequence[str], *, answer: str) -> Agreement | None:
    """How far the views of a video agree, from the logits (k, n) of each; None for a single view."""
    if len(logits) < 2:
        return None
    import torch

    logs = logits.float().cpu().double().log_softmax(1)  # mps has no 64 bits
    shares = logs.exp()
    mean = shares.mean(0)
    information = (shares * logs).sum(1).mean() - torch.special.xlogy(mean, mean).sum()
    best = tuple(labels[i] for i in logits.argmax(1).tolist())
    return Agreement(
        views=best, agreeing=best.count(answer), difference_bits=max(0.0, float(information) / math.log(2))
    )
