"""Two models become one by a straight line between their weights (WiSE-FT, arXiv 2109.01903).

What was tuned on a task and what it was tuned from often meet in a model that is better than both, on the task and away
from it. Both must be of one build, apart from what is at random in training; nothing is trained here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipact import checkpoint, towers
from clipact.dual_encoder import DualEncoder
from clipact.errors import ModelError, UsageError
from clipact.model_config import FILES_SEEN, read_config, read_files_seen
from clipact.training.files_seen import files_seen


def blend(first: str | Path, second: str | Path, out: str | Path, *, alpha: float, name: str | None = None) -> Path:
    """The folder of the model with weights (1 - alpha) x first + alpha x second.

    It was trained on what either was trained on. Counters are taken from the first. UsageError when `alpha` is not in
    0..1 or the folder is there already, ModelError when the two differ in anything but weights.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha is {alpha:g}; it takes a number from 0 (all the first) to 1 (all the second)")
    if Path(out).exists():
        raise UsageError(f"{out} is there already; name a new folder")
    ours, theirs = read_config(first), read_config(second)
    encoder, other = checkpoint.load(first), checkpoint.load(second)
    builds = zip(_build(encoder).items(), _build(other).values(), strict=True)
    if differing := [part for (part, here), there in builds if here != there]:
        raise ModelError(
            f"{first} and {second} differ in {' and '.join(differing)} of config.json: only models of one build can be "
            "blended"
        )
    weights, others = encoder.state_dict(), other.state_dict()
    if weights.keys() != others.keys():
        raise ModelError(
            f"{first} and {second} have other weights: {', '.join(sorted(weights.keys() ^ others.keys()))}"
        )
    seen = read_files_seen(first) | read_files_seen(second)
    encoder.load_state_dict({key: _between(weights[key], others[key], alpha) for key in weights})
    return checkpoint.save(
        encoder,
        out,
        name=name or f"{ours.name}+{alpha:g}*{theirs.name}",
        precision=ours.precision if ours.precision == theirs.precision else "fp32",
        trained_on=tuple(dict.fromkeys([*ours.trained_on, *theirs.trained_on])),
        license=ours.license if ours.license == theirs.license else f"{ours.license}; {theirs.license}",
        files={FILES_SEEN: files_seen((), before=seen)} if seen else None,
        notes={"blend": {"first": ours.name, "second": theirs.name, "alpha": alpha}},
    )


def _build(encoder: DualEncoder) -> dict[str, Any]:
    """What decides what a model computes but its weights, by the part of config.json that says it.

    Taken from the model, not from the file: an older version's file leaves out settings that came later.
    """
    visual, text = (_without_chance(towers.describe(tower)) for tower in (encoder.visual, encoder.text))
    return {"visual": visual, "text": text, "clip": encoder.spec, "dim": encoder.dim}


def _without_chance(table: Mapping[str, Any]) -> dict[str, Any]:
    """What is at random has no weights and no part in answers: a model may be tuned with more of it or less."""
    return {
        key: _without_chance(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if key not in ("dropout", "stochastic_depth")
    }


def _between(first: Tensor, second: Tensor, alpha: float) -> Tensor:
    return torch.lerp(first, second, alpha) if first.is_floating_point() else first
