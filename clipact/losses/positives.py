"""Which rows are positives of each other, and sums over them without a b x b matrix.

Two rows are positives when any of their ids agrees: the same clip, the same sentence, the same label. "Any" is no
partition (a caption may tie two clips whose labels differ), but by inclusion and exclusion it is a signed sum of
partitions: any of A, B = A + B - (A and B), and rows that agree in A and B are those with the same pair of ids.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor


def find_positives(ids: Sequence[Int[Tensor, " b"]]) -> Bool[Tensor, "b b"]:
    """Which rows are positives of which: those that agree in any of the id vectors. Each row is its own."""
    agree = [rearrange(vector, "b -> b 1") == rearrange(vector, "b -> 1 b") for vector in ids]
    found = agree[0]
    for more in agree[1:]:
        found = found | more
    return found


@dataclass(frozen=True)
class Partition:
    """Rows in groups; rows that are alone are left out.

    sign    +1 or -1, times the copies that were found: what membership in a group counts for
    rows    the rows that share a group, and `group` the group, 0..groups-1, of each
    """

    sign: int
    rows: Int[Tensor, " r"]
    group: Int[Tensor, " r"]
    groups: int


@dataclass(frozen=True)
class Positives:
    """The matrix of `find_positives`, never formed.

    own         what a row counts for in its own sum, from all partitions in which it is alone
    partitions  those in which some rows are not alone
    """

    own: Float[Tensor, "b 1"]
    partitions: tuple[Partition, ...]

    @classmethod
    def of(cls, ids: Sequence[Int[Tensor, " b"]]) -> "Positives":
        """Of one id vector at least; up to 2^k - 1 partitions for k vectors, one where each refines the next."""
        device, count = ids[0].device, len(ids[0])
        signs: Counter[bytes] = Counter()
        groups = [_group(vector.cpu().numpy()) for vector in ids]
        for size in range(1, len(groups) + 1):
            for some in combinations(groups, size):
                joint = reduce(lambda one, other: _group(one * count + other), some)
                signs[joint.tobytes()] += (-1) ** (size + 1)
        own, partitions = np.zeros((count, 1), dtype=np.float32), []
        for key, sign in signs.items():
            group = np.frombuffer(key, dtype=np.int64)
            alone = np.bincount(group)[group] == 1
            own[alone] += sign
            if sign and not alone.all():
                rows = np.flatnonzero(~alone)
                names, numbers = np.unique(group[rows], return_inverse=True)
                where, which = (torch.from_numpy(index).to(device) for index in (rows, numbers))
                partitions.append(Partition(sign, where, which, len(names)))
        return cls(torch.from_numpy(own).to(device), tuple(partitions))

    def sums(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """For each row, the sum of x over its positives."""
        total = x * self.own.to(x.dtype)
        for part in self.partitions:
            sums = x.new_zeros((part.groups, x.shape[1])).index_add_(0, part.group, x[part.rows])
            total.index_add_(0, part.rows, sums[part.group], alpha=part.sign)
        return total


def _group(key: np.ndarray) -> np.ndarray:
    """For each row the first row of the same key, so that equal partitions are equal arrays."""
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    return first[place]
