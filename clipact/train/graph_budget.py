"""How many graphs a memory budget retains: a chunk is measured, then the budget is spent where it saves most time.

A kept graph saves one encoding of its chunk. What it holds is counted from the tensors that autograd saves, not guessed
from the process's size, which knows of freed blocks, of other threads and of nothing on the GPU.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any

import torch
from torch import Tensor

from clipact.errors import ConfigError
from clipact.train.chunks import Chunk, Encoder, preserve_state, split_chunks, tensors_in

GB = 10**9


@dataclass(frozen=True, kw_only=True)
class GraphBudget:
    """What a budget buys, encoder by encoder.

    chunks       into which the batch was cut
    retain       how many of them have their graphs retained: the `retain` of `cached_step`
    graph_bytes  held by the graph of a chunk, the largest one
    seconds      to encode that chunk
    """

    chunks: tuple[int, ...]
    retain: tuple[int, ...]
    graph_bytes: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def peak_bytes(self) -> int:
        """What graphs hold at most: all kept ones before the loss, or one at a time when chunks are encoded again."""
        return max(sum(map(mul, self.retain, self.graph_bytes)), *self.graph_bytes)

    @property
    def cost(self) -> float:
        """Expected time over plain autograd's in the same chunks, backward counted as two encodings: 1 to 4/3."""
        plain = again = 0.0
        each = zip(self.chunks, self.retain, self.graph_bytes, self.seconds, strict=True)
        for chunks, retain, graph, seconds in each:
            plain += chunks * seconds * (3 if graph else 1)  # an encoder without a graph does not learn
            again += (chunks - retain) * seconds
        return 1 + again / plain


def plan_graph_budget(
    encoders: Sequence[Encoder],
    inputs: Sequence[Any],
    *,
    chunk_size: int,
    graph_memory_gb: float,
    seed: int = 0,
    autocast: torch.dtype | None = None,
) -> GraphBudget:
    """The chunks to keep so that graphs stay within `graph_memory_gb` (10^9 bytes); ConfigError when not one fits.

    The encoder that saves most seconds a byte comes first: often that is the text tower, whose graphs are small.
    Parameters, their gradients and the optimiser's state are not in the budget; nor are inputs and embeddings.
    """
    batches = [
        split_chunks(encoder, rows, chunk_size=chunk_size, seed=seed, place=place, autocast=autocast)[0]
        for place, (encoder, rows) in enumerate(zip(encoders, inputs, strict=True))
    ]
    with preserve_state(encoders):
        graphs, seconds = zip(*map(_measure, batches), strict=True)
    left = int(graph_memory_gb * GB)
    if max(graphs) > left:
        raise ConfigError(
            f"graph_memory_gb is {graph_memory_gb:g}, but the graph of one chunk of {chunk_size} rows holds "
            f"{max(graphs) / GB:.2g} GB; allow at least that, or take smaller chunks (train.chunk)"
        )
    retain = [len(chunks) for chunks in batches]
    for side in sorted(range(len(encoders)), key=lambda side: graphs[side] / seconds[side]):
        if graphs[side]:
            retain[side] = min(retain[side], left // graphs[side])
            left -= retain[side] * graphs[side]
    return GraphBudget(chunks=tuple(map(len, batches)), retain=tuple(retain), graph_bytes=graphs, seconds=seconds)


def _measure(chunks: Sequence[Chunk]) -> tuple[int, float]:
    """Bytes of the largest graph among an encoder's chunks, and the seconds that encoding that chunk takes."""
    # One chunk of each shape; and the last two, for sentences show no shape and the longest stand last.
    looked_at = [*{tuple(x.shape for x in tensors_in(chunk.inputs)): chunk for chunk in chunks}.values(), *chunks[-2:]]
    largest, place = max((graph_bytes(chunk), place) for place, chunk in enumerate(looked_at))
    return largest, _encoding_seconds(looked_at[place])


def graph_bytes(chunk: Chunk) -> int:
    """What the chunk's graph holds beyond parameters, buffers and inputs; 0 for an encoder that does not learn."""
    module = chunk.encoder.module
    present = {_address(tensor) for tensor in [*module.parameters(), *module.buffers(), *tensors_in(chunk.inputs)]}
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if _address(tensor) not in present:
            held[_address(tensor)] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # itself, an output would hold the node that holds it: neither were ever freed

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        graph = chunk.embed()
    del graph  # not before all is counted: a freed block's address would be met again
    return sum(held.values())


def _encoding_seconds(chunk: Chunk) -> float:
    """The better of two, after one that `graph_bytes` has warmed up."""
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        with torch.no_grad():
            chunk.embed()
        if chunk.encoder.device_type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
