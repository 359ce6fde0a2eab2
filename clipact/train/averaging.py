"""Averages of weights: the moving average of a run, and interpolation with initial weights or another model.

A model that was fine-tuned on a task, interpolated with the one it was fine-tuned from, is often better than both, on
the task and away from it (WiSE-FT, arXiv 2109.01903).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from clipact.data.sources import files_seen_csv
from clipact.errors import ModelError, UsageError
from clipact.models import checkpoint, towers
from clipact.models.checkpoint import FILES_SEEN, read_config, read_files_seen
from clipact.models.dual_encoder import DualEncoder
from clipact.models.save_checkpoint import save_model
from clipact.train.state import training_tensors


class EMA:
    """Exponential moving average of weights and running statistics (arXiv 1503.01445, section 7).

    Early on the decay is lower, (1 + step) / (10 + step), so that random beginnings are soon forgotten.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], *, decay: float) -> None:
        self.decay = decay
        self._live = training_tensors(model, names)
        self.tensors = {name: tensor.detach().clone() for name, tensor in self._live.items()}

    @torch.no_grad()
    def update(self, *, step: int) -> None:
        """Take in the weights as they are after this step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        floating = [name for name, mean in self.tensors.items() if mean.is_floating_point()]
        # AveragedModel itself would copy the whole model, frozen towers too.
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average([self.tensors[name] for name in floating], [self._live[name] for name in floating], step)
        for name in self.tensors.keys() - set(floating):
            self.tensors[name].copy_(self._live[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averaged weights; afterwards its own again."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, mean in self.tensors.items():
            kept = mean.clone()
            mean.copy_(self._live[name])
            self._live[name].copy_(kept)


class InitialWeights:
    """Interpolation between fine-tuned weights and the initial ones (WiSE-FT, arXiv 2109.01903).

    alpha  how far to go back along it: 0 is where training stands, 1 where it began
    """

    def __init__(self, model: nn.Module, names: Sequence[str], *, alpha: float) -> None:
        self.alpha = alpha
        self._live = training_tensors(model, names)
        self.tensors = {name: tensor.detach().clone() for name, tensor in self._live.items()}

    @torch.no_grad()
    def capture(self) -> None:
        """Take the model's weights, as they are now, as the initial ones."""
        for name, tensor in self.tensors.items():
            tensor.copy_(self._live[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the weights in between; afterwards its own again. Counters stay as they are."""
        kept = {name: tensor.detach().clone() for name, tensor in self._live.items() if tensor.is_floating_point()}
        with torch.no_grad():
            for name, own in kept.items():
                self._live[name].lerp_(self.tensors[name].to(own.dtype), self.alpha)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, own in kept.items():
                    self._live[name].copy_(own)


def interpolate_models(
    first: str | Path, second: str | Path, out: str | Path, *, alpha: float, name: str | None = None
) -> Path:
    """The folder of the model with weights (1 - alpha) x first + alpha x second.

    It was trained on what either was trained on. Counters are taken from the first. UsageError when `alpha` is not in
    0..1 or the folder is there already, ModelError when the two differ in anything but weights.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha is {alpha:g}; it takes a number from 0 (all the first) to 1 (all the second)")
    if Path(out).exists():
        raise UsageError(f"{out} is there already; name a new folder")
    ours, theirs = read_config(first), read_config(second)
    encoder, other = checkpoint.load_checkpoint(first), checkpoint.load_checkpoint(second)
    builds = zip(_build(encoder).items(), _build(other).values(), strict=True)
    if differing := [part for (part, here), there in builds if here != there]:
        raise ModelError(
            f"{first} and {second} differ in {' and '.join(differing)} of config.json: only models of one build can be "
            "interpolated"
        )
    weights, others = encoder.state_dict(), other.state_dict()
    if weights.keys() != others.keys():
        raise ModelError(
            f"{first} and {second} have other weights: {', '.join(sorted(weights.keys() ^ others.keys()))}"
        )
    seen = read_files_seen(first) | read_files_seen(second)
    encoder.load_state_dict({key: _between(weights[key], others[key], alpha) for key in weights})
    return save_model(
        encoder,
        out,
        name=name or f"{ours.name}+{alpha:g}*{theirs.name}",
        precision=ours.precision if ours.precision == theirs.precision else "fp32",
        trained_on=tuple(dict.fromkeys([*ours.trained_on, *theirs.trained_on])),
        license=ours.license if ours.license == theirs.license else f"{ours.license}; {theirs.license}",
        files={FILES_SEEN: files_seen_csv((), before=seen)} if seen else None,
        notes={"blend": {"first": ours.name, "second": theirs.name, "alpha": alpha}},
    )


def _build(encoder: DualEncoder) -> dict[str, Any]:
    """What decides what a model computes but its weights, by the part of config.json that says it.

    Taken from the model, not from the file: an older version's file leaves out settings that came later.
    """
    visual, text = (_without_dropout(towers.describe(tower)) for tower in (encoder.visual, encoder.text))
    return {"visual": visual, "text": text, "clip": encoder.spec, "dim": encoder.dim}


def _without_dropout(table: Mapping[str, Any]) -> dict[str, Any]:
    """What is at random has no weights and no part in answers: a model may be tuned with more of it or less."""
    return {
        key: _without_dropout(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if key not in ("dropout", "stochastic_depth")
    }


def _between(first: Tensor, second: Tensor, alpha: float) -> Tensor:
    return torch.lerp(first, second, alpha) if first.is_floating_point() else first
