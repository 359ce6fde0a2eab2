"""One step: batches in, weights a little better, and what it came to."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clipact.data.loader import Batch
from clipact.data.order import seed_from
from clipact.dual_encoder import PRECISIONS, DualEncoder
from clipact.errors import TrainingError
from clipact.losses import LOSSES, bound_log_scale, cross_entropy, distil
from clipact.training.chunks import Encoder, Pieces, Repeated
from clipact.training.gradcache import cached_step
from clipact.training.recipe import TrainConfig
from clipact.training.teachers import Teachers


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The mean loss over a step's batches, the gradient's norm before it was cut, and how many clips were seen.

    `scale` is what multiplies cosines after it, None where none are.
    """

    loss: float
    gradient_norm: float
    clips: int
    scale: float | None = None


def take_step(
    encoder: DualEncoder,
    encoders: Sequence[Encoder],
    batches: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    *,
    seed: int,
    retain: Sequence[int] | int = 0,
    scaler: torch.amp.GradScaler | None = None,
    clip_norm: float | None = None,
    answers: tuple[str, ...] = (),
    teachers: Teachers | None = None,
) -> Outcome:
    """Take the gradient of the mean of the batches' losses, and one step of the optimiser along it.

    All random numbers follow from `seed`: a new one each step. `answers` are all that could be said of a clip, for
    "cross_entropy"; `teachers` have a share in each batch's loss.
    """
    optimizer.zero_grad(set_to_none=True)
    loss = 0.0
    for number, batch in enumerate(batches):
        value = cached_step(
            encoders,
            inputs_of(batch, answers=answers),
            loss_fn=loss_of(encoder, batch, config, answers=answers, teachers=teachers, share=1 / len(batches)),
            chunk_size=config.chunk,
            seed=seed_from(seed, number),
            retain=retain,
            autocast=PRECISIONS[config.precision],
            scaler=scaler,
        )
        loss += value.item()
    norm = descend(optimizer, loss=loss, scaler=scaler, clip_norm=clip_norm)
    bound_log_scale(encoder.log_scale)
    clips = sum(len(batch.repeats) for batch in batches)
    return Outcome(loss=loss, gradient_norm=norm, clips=clips, scale=encoder.scale.item())


def descend(
    optimizer: torch.optim.Optimizer, *, loss: float, scaler: torch.amp.GradScaler | None, clip_norm: float | None
) -> float:
    """The norm of the gradient that is there, before it was cut to `clip_norm`, after a step of the optimiser along it.

    TrainingError, and no step, when the loss or the norm is not finite; where a scaler looks after the norm, it does.
    """
    if scaler is not None:
        scaler.unscale_(optimizer)
    learning = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.clip_grad_norm_(learning, float("inf") if clip_norm is None else clip_norm).item()
    if not math.isfinite(loss) or (scaler is None and not math.isfinite(norm)):
        raise TrainingError(
            f"the loss is {loss} and the gradient's norm {norm:g}: this step was not taken; lower optim.lr, "
            "set optim.clip_norm, or look at the data"
        )
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    return norm


def inputs_of(batch: Batch, *, answers: tuple[str, ...] = ()) -> tuple[Repeated, tuple[str, ...]]:
    """What the two encoders are given: the batch, or its clips and every answer."""
    return Repeated(Pieces(batch.visual), batch.repeats), answers or batch.sentences


def loss_of(
    encoder: DualEncoder,
    batch: Batch,
    config: TrainConfig,
    *,
    answers: tuple[str, ...] = (),
    teachers: Teachers | None = None,
    share: float = 1.0,
) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of a batch as a function of both sides' embeddings, times `share`."""
    device = encoder.log_scale.device
    ids = [vector.to(device) for vector in (batch.visual_ids, batch.text_ids, batch.label_ids)]
    tile = config.loss_tile if len(batch) > config.loss_tile else None
    truth = torch.tensor([answers.index(sentence) for sentence in batch.sentences], device=device) if answers else None
    taught = 0.0 if teachers is None else teachers.share
    targets = None if teachers is None else teachers.targets(batch)

    def loss(visual: Tensor, text: Tensor) -> Tensor:
        if truth is not None:
            smoothing = config.label_smoothing
            return share * cross_entropy(visual, text, scale=encoder.scale, truth=truth, label_smoothing=smoothing)
        own: Tensor = LOSSES[config.loss](
            visual,
            text,
            scale=encoder.scale,
            bias=encoder.bias,
            ids=ids,
            label_smoothing=config.label_smoothing,
            tile=tile,
        )
        if targets is None:
            return share * own
        return share * ((1 - taught) * own + taught * distil(visual, text, scale=encoder.scale, targets=targets))

    return loss
