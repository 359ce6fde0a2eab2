"""The words that labels are weighed against: everyday scenes and actions, but for those that mean what a label means.

prompts/background.toml has them all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Bool, Float

from clipact.config import asset_path, load_toml, parse
from clipact.prompts import LabelSet

_NEAR = 0.999


@dataclass(frozen=True, kw_only=True)
class _File:
    """prompts/background.toml."""

    words: tuple[str, ...]


@cache
def background_words() -> tuple[str, ...]:
    """The shipped phrases, in the file's order."""
    return parse(_File, load_toml(asset_path("prompts/background.toml"))).words


def exclude_labels(words: Sequence[str], labels: LabelSet) -> tuple[str, ...]:
    """Those words that neither are a label nor read like one."""
    own = {said.casefold() for said in (*labels.labels, *labels.phrases)}
    return tuple(word for word in words if word.casefold() not in own)


def append_background(labels: LabelSet, background: Sequence[str]) -> LabelSet:
    """The labels, and the background words after them, as one set."""
    return replace(
        labels,
        name=f"{labels.name} and background",
        labels=(*labels.labels, *background),
        phrases=(*labels.phrases, *background),
    )


def near_labels(background: Float[np.ndarray, "b d"], labels: Float[np.ndarray, "n d"]) -> Bool[np.ndarray, "b n"]:
    """Which background words mean what which labels mean, from the unit vectors of both.

    Near is what is nearer than 999 in a thousand pairs of background words are to each other: cosines of sentences
    differ from model to model. The share was chosen on the dev part of sports22 (eval/benchmarks/trust.py).
    """
    among = (background @ background.T)[np.triu_indices(len(background), 1)]
    return background @ labels.T > np.quantile(among, _NEAR)
