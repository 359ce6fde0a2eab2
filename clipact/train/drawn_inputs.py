"""Which clips, in which versions, and which sentences a run of steps draws: what frozen backbones encode before them.

The same draws as those of the batches: they follow from the seed, the epoch and the example alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from clipact.data.sources import TrainingExample
from clipact.train.loader import EpochSampler, draw_texts


class ClipKey(NamedTuple):
    """The clips of a part of a file in one version; view 0 is unaugmented.

    `frames` are those of a clip, `clips` of how many there are.
    """

    visual_id: int
    frames: int
    clips: int
    view: int

    @classmethod
    def of(cls, example: TrainingExample, view: int = 0) -> "ClipKey":
        """Return the key of an example's clips."""
        return cls(example.visual_id, example.frames, example.clips, view)

    @property
    def shape(self) -> tuple[int, int]:
        """Frames of a clip, and clips."""
        return self.frames, self.clips


@dataclass(frozen=True, kw_only=True)
class DrawnInputs:
    """Distinct clips, each with an example that they are of, and distinct sentences."""

    clips: dict[ClipKey, TrainingExample]
    sentences: tuple[str, ...]


def draw_inputs(
    examples: Sequence[TrainingExample], span: range, *, seed: int, views: int, sentences: Iterable[str] = ()
) -> DrawnInputs:
    """Return what the places in the endless order of the examples draw.

    For two epochs and more that is taken to be everything: each example in each view, with every sentence that it may
    have.

    Args:
        examples: What is drawn from.
        span: The places: those of step s are s x batch up to (s + 1) x batch.
        seed: Of the order and of the draws.
        views: Versions of each clip.
        sentences: More of them, whatever is drawn.
    """
    clips: dict[ClipKey, TrainingExample] = {}
    said = dict.fromkeys(sentences)
    if len(span) >= 2 * len(examples):
        for example in examples:
            clips |= {ClipKey.of(example, view): example for view in range(views)}
            said |= dict.fromkeys(example.possible_sentences)
    else:
        for position in EpochSampler(len(examples), seed=seed).positions(span.start, span.stop):
            example = examples[position.example]
            texts, drawn = draw_texts(example, seed=seed, epoch=position.epoch)
            clips[ClipKey.of(example, drawn % views)] = example
            said |= dict.fromkeys(sentence for sentence, _ in texts)
    return DrawnInputs(clips=clips, sentences=tuple(said))
