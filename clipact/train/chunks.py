"""Chunks of a batch, each encoded to the same embeddings every time.

The random numbers of a chunk depend on (seed, encoder, chunk) alone: not on what ran before, nor on how many processes
there are. So a chunk that is encoded again drops out the same units, on the CPU, every CUDA device and MPS, without any
state being saved. Randomness from elsewhere (numpy, Python's random) is not controlled.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clipact.data.fingerprint import seed_from
from clipact.errors import UsageError


@dataclass(frozen=True)
class Encoder:
    """One side of a contrastive loss.

    name    what reports call it
    module  holds every parameter that learns through this side, and every running statistic
    encode  turns inputs, whole or a chunk of them, into one embedding a row
    """

    name: str
    module: nn.Module
    encode: Callable[[Any], Float[Tensor, "b d"]]

    @property
    def trainable(self) -> bool:
        """Whether any of its parameters takes a gradient."""
        return any(parameter.requires_grad for parameter in self.module.parameters())

    @property
    def device_type(self) -> str:
        """Where its parameters lie: "cpu", "cuda"; "cpu" when it has none."""
        return next((parameter.device.type for parameter in self.module.parameters()), "cpu")


@dataclass(frozen=True)
class Chunk:
    """Some rows of an encoder's input, with the seed and the precision that they are always encoded with."""

    encoder: Encoder
    inputs: Any
    seed: int
    autocast: torch.dtype | None

    def embed(self) -> Float[Tensor, "b d"]:
        """The embeddings, in 32 bits at least: bit for bit the same at each call, with a graph if gradients are on."""
        # No cache of cast weights: one that was filled without gradients would cut the graph of a later call.
        precision = torch.autocast(
            self.encoder.device_type, dtype=self.autocast, enabled=self.autocast is not None, cache_enabled=False
        )
        with seeded(self.seed), precision:
            embeddings = self.encoder.encode(self.inputs)
        return embeddings if embeddings.dtype == torch.float64 else embeddings.float()


class RaggedRows(tuple[Any, ...]):
    """Rows that are no one tensor, because they differ in shape: several inputs, one after the other."""


@dataclass(frozen=True)
class RepeatedRows:
    """Rows of which each stands in the batch so many `times`, one after the other."""

    rows: Any
    times: Sequence[int]

    @property
    def index(self) -> list[int] | None:
        """Which of the rows each row of the batch is; None where it is the same one."""
        if all(times == 1 for times in self.times):
            return None
        return [row for row, times in enumerate(self.times) for _ in range(times)]


def split_chunks(
    encoder: Encoder, inputs: Any, *, chunk_size: int, seed: int, place: int = 0, autocast: torch.dtype | None = None
) -> tuple[list[Chunk], list[int] | None]:
    """The inputs in chunks of `chunk_size` rows, the last one as short as it falls; `place` numbers the encoder.

    A tensor, list or tuple holds one item a row. Dicts and dataclasses are cut field by field; a field that has no rows
    (a number, a string, None) goes with every chunk. `RaggedRows` are cut piece by piece. Each row of `RepeatedRows`,
    and each distinct sentence, stands in the chunks once, and the second value says which of their rows belongs to each
    row of the batch; it is None where they are the batch's rows themselves.
    """
    index = None
    if isinstance(inputs, RepeatedRows):
        inputs, index = inputs.rows, inputs.index
    elif isinstance(inputs, (list, tuple)) and all(isinstance(row, str) for row in inputs):
        # Short ones first: the sentences of a chunk are of like length, and little is spent on padding.
        unique = sorted(set(inputs), key=lambda sentence: (len(sentence), sentence))
        place_of = {sentence: row for row, sentence in enumerate(unique)}
        inputs, index = unique, [place_of[sentence] for sentence in inputs]
    if chunk_size < 1:
        raise UsageError(f"chunk_size is {chunk_size}; a chunk has at least one row")
    chunks: list[Chunk] = []
    for piece in inputs if isinstance(inputs, RaggedRows) else (inputs,):
        for start in range(0, _length(encoder, piece), chunk_size):
            rows = _take(piece, slice(start, start + chunk_size))
            chunks.append(Chunk(encoder, rows, seed_from(seed, "chunk", place, len(chunks)), autocast))
    return chunks, index


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's random numbers on every device follow from `seed`; outside they go on as if nothing had run."""
    generators = [torch.default_generator, *torch.cuda.default_generators]  # none of CUDA's before its first use
    if torch.backends.mps.is_available():
        generators.append(torch.mps._get_default_mps_generator())
    states = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


@contextmanager
def preserve_state(encoders: Sequence[Encoder]) -> Iterator[None]:
    """Afterwards every buffer holds what it held, and every module is in the mode it was in."""
    modules = [module for encoder in encoders for module in encoder.module.modules()]
    modes = [module.training for module in modules]
    buffers = [buffer for encoder in encoders for buffer in encoder.module.buffers()]
    values = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for buffer, value in zip(buffers, values, strict=True):
            buffer.copy_(value)


def tensors_in(inputs: Any) -> Iterator[Tensor]:
    """Every tensor in inputs of the kinds that `split_chunks` takes."""
    if isinstance(inputs, Tensor):
        yield inputs
    items = inputs if isinstance(inputs, (list, tuple)) else [field for _, field in _fields(inputs)]
    for item in items:
        yield from tensors_in(item)


def _length(encoder: Encoder, inputs: Any) -> int:
    lengths = set(_lengths(inputs))
    if len(lengths) != 1 or lengths == {0}:
        seen = " and ".join(map(str, sorted(lengths))) or "no"
        raise UsageError(f"the input of encoder {encoder.name!r} has {seen} rows; every field takes the same number")
    return lengths.pop()


def _lengths(inputs: Any) -> Iterator[int]:
    if isinstance(inputs, (Tensor, list, tuple)):
        yield len(inputs)
    for _, field in _fields(inputs):
        yield from _lengths(field)


def _take(inputs: Any, rows: slice) -> Any:
    if isinstance(inputs, (Tensor, list, tuple)):
        return inputs[rows]
    taken = {name: _take(field, rows) for name, field in _fields(inputs)}
    if isinstance(inputs, Mapping):
        return taken
    return dataclasses.replace(inputs, **taken) if taken else inputs


def _fields(inputs: Any) -> list[tuple[str, Any]]:
    if isinstance(inputs, Mapping):
        return list(inputs.items())
    if dataclasses.is_dataclass(inputs):
        return [(field.name, getattr(inputs, field.name)) for field in dataclasses.fields(inputs)]
    return []
