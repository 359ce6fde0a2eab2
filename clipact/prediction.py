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
class Prediction:
    """Labels ranked for one clip.

    ranked            best first; the scores are a softmax over ALL labels, cut to the best afterwards
    video             the file, or None when frames were given
    model, prompts    names of the model and the prompt set that answered; prompts is "" of a supervised model
    duration_seconds  of the video, None when unknown
    decoder           what decoded the frames, None when frames were given
    frames            the ledger of the frames that were looked at
    notes             what a reader should know: frames repeated, a file cut short
    outside           of a label index: what the labels hold that are not in `ranked`; None when all are
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
        lines = [self.video or "frames"]
        width = max(len(entry.label) for entry in self.ranked[:5])
        lines += [f"  {entry.label:<{width}}  {entry.score:6.1%}" for entry in self.ranked[:5]]
        if len(self.ranked) > 5:
            lines.append(f"  … and {len(self.ranked) - 5} more")
        return "\n".join(lines)
