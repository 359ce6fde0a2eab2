"""What every recogniser here answers. Imports nothing heavy: the command line shows answers, too."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scored:
    """A label and its probability."""

    label: str
    score: float


@dataclass(frozen=True)
class FrameStamp:
    """One line of the frame ledger: the frame's number in presentation order, and when it is shown."""

    index: int
    seconds: float


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

    views     the best label of each view by itself, in the order of time
    agreeing  how many of them are the answer
    difference_bits  the mutual information of label and view: 0 when all views give the same scores, at most log2 of
                     their number (BALD, arXiv 1112.5745, with views in the place of networks)
    """

    views: tuple[str, ...]
    agreeing: int
    difference_bits: float


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What a calibration makes of an answer.

    none_of_these  whether the clip fits none of the labels: `fit`, a score by the name `score`, is below `threshold`,
                   as it is for a share of clips that fit: `false_rejections`
    label_set      the labels that could be right, likeliest first: they hold the right one in `coverage` of clips
    """

    none_of_these: bool
    fit: float
    threshold: float
    score: str
    false_rejections: float
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
