"""What a calibration is fitted on: the logits of labelled clips."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledClips:
    """The logits of n clips for l labels and b background words, and what is true of them.

    near         which background words mean what which labels mean: they are no background for these
    groups       what belongs together (a person, a sequence); None when each clip stands for itself
    multi_truth  all labels that are true of each clip, when there can be several
    """

    logits: Float[np.ndarray, "n l"]
    background: Float[np.ndarray, "n b"]
    near: Bool[np.ndarray, "b l"]
    truth: Int[np.ndarray, " n"]
    groups: Sequence[str] | None = None
    multi_truth: Bool[np.ndarray, "n l"] | None = None

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def true(self) -> Bool[np.ndarray, "n l"]:
        """Which labels are true of each clip."""
        if self.multi_truth is not None:
            return self.multi_truth
        return np.eye(self.logits.shape[1], dtype=bool)[self.truth]

    def among(self, labels: Int[np.ndarray, " m"]) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n a"]]:
        """The logits where only these labels are chosen from, and those of the background words far from them."""
        return self.logits[:, labels], self.background[:, ~self.near[:, labels].any(1)]

    def rows(self, chosen: Int[np.ndarray, " m"]) -> "LabelledClips":
        """Some of them."""
        return LabelledClips(
            logits=self.logits[chosen],
            background=self.background[chosen],
            near=self.near,
            truth=self.truth[chosen],
            groups=None if self.groups is None else [self.groups[row] for row in chosen],
            multi_truth=None if self.multi_truth is None else self.multi_truth[chosen],
        )

    def split(self, *, share: float = 0.5, seed: int) -> "tuple[LabelledClips, LabelledClips]":
        """A share of the clips, drawn at random, and the others; as near to the share as whole groups allow."""
        names = (
            np.arange(len(self)) if self.groups is None else np.unique(np.asarray(self.groups), return_inverse=True)[1]
        )
        order = np.random.default_rng(seed).permutation(names.max() + 1)
        sizes = np.cumsum(np.bincount(names)[order])
        inside = np.isin(names, order[: int(np.abs(sizes - share * len(self)).argmin()) + 1])
        return self.rows(np.flatnonzero(inside)), self.rows(np.flatnonzero(~inside))
