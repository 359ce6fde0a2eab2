"""Gradient caching: a contrastive step whose batch is limited by its embeddings, not by its graphs.

A contrastive loss looks at the whole batch at once, so it is no sum over chunks. But its gradient passes through the
embeddings, and they are small: encode every chunk without a graph, take the loss and its gradient at the embeddings,
then encode each chunk again, alike to the bit, and send its rows of that gradient back through it (arXiv 2101.06983).
Forward costs F and backward 2F, so this costs 4F where plain autograd costs 3F. A graph that is kept from the first
pass needs no second encoding: with m of k chunks kept the cost is (4 - m/k)/3 of plain.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from clipact.errors import ModelError, UsageError
from clipact.train.chunks import Chunk, Encoder, split_chunks

NoSync = Callable[[], AbstractContextManager[Any]]


def cached_step(
    encoders: Sequence[Encoder],
    inputs: Sequence[Any],
    *,
    loss_fn: Callable[..., Tensor],
    chunk_size: int,
    seed: int,
    retain: int | Sequence[int] = 0,
    autocast: torch.dtype | None = None,
    scaler: torch.amp.GradScaler | None = None,
    no_sync: NoSync | None = None,
) -> Float[Tensor, ""]:
    """The loss, detached; its gradient is added to every parameter's `.grad`, as `loss.backward()` would.

    encoders  one a side; the same module may stand on several sides (tied towers)
    inputs    one an encoder: a tensor, a list, a dict or a dataclass, see `split_chunks`. Each distinct one of a list
              of sentences, and each of `RepeatedRows`, is encoded once: rows that share it share its dropout too, and
              their gradients add up
    loss_fn   called once with one matrix of embeddings an encoder, outside autocast, in 32 bits or more. Parameters
              that it uses itself (log_scale, bias) get their gradient there, once
    seed      all random numbers follow from it and the places of encoder and chunk: a new one each step (and rank)
    retain    chunks whose graphs are kept from the first pass; one number an encoder, or one for all
    autocast  torch.bfloat16 or torch.float16 inside the encoders; None for their own precision
    scaler    scales the loss for float16; unscaling and stepping are left to the caller
    no_sync   DistributedDataParallel's: entered around all but an encoder's last chunk, which then is always encoded
              twice, because DDP arms its reduction in the forward pass

    An encoder without trainable parameters is encoded once. Batch norm in training mode normalises by the chunk, and
    its running statistics take each chunk in once, in the first pass; in eval mode they are frozen. ModelError when
    a second encoding changes a buffer.
    """
    kept = [retain] * len(encoders) if isinstance(retain, int) else retain
    if not len(encoders) == len(inputs) == len(kept):
        raise UsageError(f"{len(encoders)} encoders, {len(inputs)} inputs, {len(kept)} counts of kept chunks")
    sides = []
    for place, (encoder, rows, keep) in enumerate(zip(encoders, inputs, kept, strict=True)):
        chunks, index = split_chunks(encoder, rows, chunk_size=chunk_size, seed=seed, place=place, autocast=autocast)
        sides.append(_Side(chunks, index, keep=keep, no_sync=no_sync))

    with torch.autocast(encoders[0].device_type, enabled=False):
        loss = loss_fn(*[side.encode() for side in sides])
    torch.autograd.backward(loss if scaler is None else scaler.scale(loss))

    with ExitStack() as stack:
        for encoder in encoders:
            stack.enter_context(_unchanged_buffers(encoder))
        # Kept graphs go first: what they held is free before a chunk is encoded again.
        for side in sides:
            side.backward_kept()
        for side in sides:
            side.replay()
    return loss.detach()


class _Side:
    """One encoder's share of a step: its chunks, and the rows at which the loss's gradient arrives."""

    def __init__(self, chunks: list[Chunk], index: list[int] | None, *, keep: int, no_sync: NoSync | None) -> None:
        trainable = chunks[0].encoder.trainable
        most = len(chunks) if no_sync is None else len(chunks) - 1
        replayed = len(chunks) - min(keep, most) if trainable else len(chunks)
        self.replayed, self.kept = chunks[:replayed], chunks[replayed:]
        self.trainable, self.index, self.no_sync = trainable, index, no_sync or nullcontext
        self.graphs: list[Tensor] = []

    def encode(self) -> Float[Tensor, "b d"]:
        """The first pass: an embedding for each row of the batch, made from leaves that collect the gradient."""
        with torch.no_grad():
            embedded = [chunk.embed() for chunk in self.replayed]
        with self.no_sync():
            self.graphs = [chunk.embed() for chunk in self.kept]
        self.leaves = [rows.detach().requires_grad_(self.trainable) for rows in [*embedded, *self.graphs]]
        rows = torch.cat(self.leaves)
        return rows if self.index is None else rows[self.index]

    def backward_kept(self) -> None:
        """Send the gradient through the graphs that were kept, and let go of each."""
        with self.no_sync():
            while self.graphs:
                self._backward(self.graphs.pop(), self.leaves.pop())

    def replay(self) -> None:
        """Encode the other chunks again, each with its graph, and send the gradient through."""
        for chunk in self.replayed if self.trainable else []:
            last = chunk is self.replayed[-1]
            with nullcontext() if last else self.no_sync():
                self._backward(chunk.embed(), self.leaves.pop(0))

    def _backward(self, rows: Tensor, leaf: Tensor) -> None:
        # A loss that ignores this side leaves no gradient.
        if leaf.grad is not None:
            torch.autograd.backward(rows, leaf.grad)


@contextmanager
def _unchanged_buffers(encoder: Encoder) -> Iterator[None]:
    """Inside, running statistics stay as they are; ModelError when the encoder writes to a buffer nevertheless."""
    norms = [m for m in encoder.module.modules() if isinstance(m, _NormBase) and m.training and m.track_running_stats]
    before = [(name, buffer, buffer._version) for name, buffer in encoder.module.named_buffers()]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
    for name, buffer, version in before:
        if buffer._version != version:
            raise ModelError(
                f"encoder {encoder.name!r} writes to its buffer {name!r} each time it is called, and a chunk that is "
                "encoded twice would write twice; keep every chunk's graph, or put that part in eval mode"
            )
