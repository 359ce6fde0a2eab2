"""Check of the cached gradient against plain autograd's, on the model and data of a run.

Plain autograd here keeps every graph of the same chunks with the same random numbers, so that the two may differ by
rounding alone. Gradients, statistics and random numbers are left as they were.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clipact.errors import TrainingError
from clipact.train.chunks import Encoder, preserve_state, split_chunks
from clipact.train.gradcache import cached_step

BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-6}
"""What a relative difference may be, by the precision of the parameters."""

Gradients = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class GradientCheck:
    """How far the cached gradient lies from plain autograd's, by encoder and by parameter of the loss.

    differences  norm of the difference over norm of the plain gradient
    bounds       what each may be at most
    """

    differences: Mapping[str, float]
    bounds: Mapping[str, float]

    def worse(self, other: "GradientCheck") -> "GradientCheck":
        """The larger difference of the two for each name."""
        differences = {name: max(seen, other.differences[name]) for name, seen in self.differences.items()}
        bounds = {name: max(bound, other.bounds[name]) for name, bound in self.bounds.items()}
        return GradientCheck(differences=differences, bounds=bounds)

    @property
    def past(self) -> tuple[str, ...]:
        """The names whose difference is past its bound, or not a number."""
        return tuple(name for name, seen in self.differences.items() if not seen <= self.bounds[name])


def verify_gradient(
    encoders: Sequence[Encoder],
    inputs: Sequence[Any],
    *,
    loss_fn: Callable[..., Tensor],
    loss_parameters: Mapping[str, nn.Parameter],
    chunk_size: int,
    seed: int,
    retain: int | Sequence[int] = 0,
    autocast: torch.dtype | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> GradientCheck:
    """The differences, each within its bound; TrainingError when one is past it.

    Takes what `cached_step` takes, and by name the parameters that the loss itself uses (log_scale, bias). Plain
    autograd holds all graphs at once: give it as many rows as fit, more than one chunk.

    The bounds are 1e-12 for 64-bit and 1e-6 for 32-bit parameters. Under autocast rounding hangs on the model, so the
    bound is measured: twice the difference between plain autograd over these chunks and over chunks of half the size,
    in eval mode, because dropout and batch statistics hang on the chunks; at least the bound without autocast.
    """
    learning = {encoder.name: [p for p in encoder.module.parameters() if p.requires_grad] for encoder in encoders}
    learning |= {name: [parameter] for name, parameter in loss_parameters.items()}
    learning = {name: parameters for name, parameters in learning.items() if parameters}

    common = {"loss_fn": loss_fn, "seed": seed, "autocast": autocast, "scaler": scaler}

    def gradients(step: Callable[..., Tensor], *, chunk_size: int = chunk_size, **more: Any) -> Gradients:
        with _fresh_gradients(learning):
            step(encoders, inputs, chunk_size=chunk_size, **common, **more)
            return {name: _flat(parameters) for name, parameters in learning.items()}

    with preserve_state(encoders):
        plain = gradients(plain_step)
        cached = gradients(cached_step, retain=retain)
        bounds = {name: max(BOUNDS[p.dtype] for p in parameters) for name, parameters in learning.items()}
        if autocast is not None:
            for encoder in encoders:
                encoder.module.eval()
            whole, half = gradients(plain_step), gradients(plain_step, chunk_size=math.ceil(chunk_size / 2))
            bounds = {name: max(bound, 2 * _difference(half[name], whole[name])) for name, bound in bounds.items()}

    differences = {name: _difference(cached[name], plain[name]) for name in learning}
    check = GradientCheck(differences=differences, bounds=bounds)
    if check.past:
        seen = ", ".join(f"{name} by {differences[name]:.1e} (bound {bounds[name]:.0e})" for name in check.past)
        raise TrainingError(
            f"the cached gradient differs from plain autograd's: {seen}. Something in the model is not the same when a "
            "chunk is encoded twice: random numbers that torch does not draw, or a state that its forward pass changes"
        )
    return check


def plain_step(
    encoders: Sequence[Encoder],
    inputs: Sequence[Any],
    *,
    loss_fn: Callable[..., Tensor],
    chunk_size: int,
    seed: int,
    autocast: torch.dtype | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> Float[Tensor, ""]:
    """The loss, its gradient added to `.grad`, by one `backward` through the graphs of all chunks.

    What `cached_step` must equal, and what it costs without caching.
    """
    embeddings = []
    for place, (encoder, rows) in enumerate(zip(encoders, inputs, strict=True)):
        chunks, index = split_chunks(encoder, rows, chunk_size=chunk_size, seed=seed, place=place, autocast=autocast)
        embedded = torch.cat([chunk.embed() for chunk in chunks])
        embeddings.append(embedded if index is None else embedded[index])
    with torch.autocast(encoders[0].device_type, enabled=False):
        loss = loss_fn(*embeddings)
    torch.autograd.backward(loss if scaler is None else scaler.scale(loss))
    return loss.detach()


def _difference(seen: Tensor, true: Tensor) -> float:
    return float((seen - true).norm() / true.norm()) if true.any() else float(seen.norm())


def _flat(parameters: Sequence[nn.Parameter]) -> Tensor:
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten().double() for p in parameters])


@contextmanager
def _fresh_gradients(groups: Mapping[str, Sequence[nn.Parameter]]) -> Iterator[None]:
    """Inside, no parameter has a gradient yet; afterwards each has again what it had."""
    before = {parameter: parameter.grad for parameters in groups.values() for parameter in parameters}
    for parameter in before:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in before.items():
            parameter.grad = gradient
