"""The planner counts what a graph holds to the byte, and spends a budget without passing it."""

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clipact.errors import ConfigError
from clipact.train.chunks import Encoder, RaggedRows, split_chunks
from clipact.train.graph_budget import GB, GraphBudget, graph_bytes, plan_graph_budget


class Net(nn.Module):
    """Layers with a tanh between, whose output is what a graph holds."""

    def __init__(self, hidden: int, *, depth: int = 1) -> None:
        super().__init__()
        self.first = nn.Linear(8, hidden)
        self.more = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(depth - 1))
        self.last = nn.Linear(hidden, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).tanh()
        for layer in self.more:
            x = layer(x).tanh()
        return self.last(x)


def encoder(name: str, module: nn.Module) -> Encoder:
    return Encoder(name, module, module)


@pytest.mark.parametrize("rows", [5, 6])
def test_a_graph_is_counted_to_the_byte(rows):
    batch = torch.randn(100, 8)
    e = encoder("video", Net(16, depth=3))
    # tanh saves its output, which the next layer saves, too; the first layer saves the input, which is there anyway.
    assert graph_bytes(split_chunks(e, batch, chunk_size=rows, seed=0)[0][0]) == 3 * rows * 16 * 4


def test_what_was_counted_is_given_back():
    net, made = Net(16), []
    net.last.register_forward_pre_hook(lambda _, inputs: made.append(weakref.ref(inputs[0])))
    assert graph_bytes(split_chunks(encoder("video", net), torch.randn(10, 8), chunk_size=5, seed=0)[0][0]) > 0
    assert made
    assert not any(one() is not None for one in made), "the output of tanh is held by the graph that it belongs to"


def test_a_frozen_encoder_has_no_graph():
    net = Net(16)
    net.requires_grad_(False)
    assert graph_bytes(split_chunks(encoder("video", net), torch.randn(10, 8), chunk_size=5, seed=0)[0][0]) == 0


@settings(max_examples=15, deadline=None)
@given(budget=st.integers(2_000, 100_000), chunk_size=st.integers(3, 12))
def test_the_plan_stays_within_its_budget_and_wastes_less_than_a_chunk(budget, chunk_size):
    torch.manual_seed(0)
    encoders = [encoder("video", Net(32)), encoder("text", Net(16, depth=2))]
    inputs = [torch.randn(50, 8), torch.randn(50, 8)]
    plan = plan_graph_budget(encoders, inputs, chunk_size=chunk_size, graph_memory_gb=budget / GB)
    held = sum(k * g for k, g in zip(plan.retain, plan.graph_bytes, strict=True))
    assert held <= budget
    assert plan.peak_bytes <= budget
    for keep, chunks, one in zip(plan.retain, plan.chunks, plan.graph_bytes, strict=True):
        assert keep == chunks or budget - held < one
    assert 1 <= plan.cost <= 4 / 3 + 1e-9


def test_a_budget_for_all_keeps_all_and_costs_no_more_than_plain():
    plan = plan_graph_budget([encoder("video", Net(32))], [torch.randn(50, 8)], chunk_size=8, graph_memory_gb=1.0)
    assert plan.retain == plan.chunks == (7,)
    assert plan.cost == 1


def test_seconds_a_byte_decide_who_is_kept_first():
    class Slow(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():  # work that leaves nothing in the graph
                for _ in range(200):
                    torch.ones(200, 200) @ torch.ones(200, 200)
            return super().forward(x)

    for place, kinds in enumerate([(Slow, Net), (Net, Slow)]):
        encoders = [encoder(str(i), kind(16)) for i, kind in enumerate(kinds)]
        one = 10 * 16 * 4
        plan = plan_graph_budget(encoders, [torch.randn(40, 8)] * 2, chunk_size=10, graph_memory_gb=5 * one / GB)
        assert plan.retain[place] == 4
        assert plan.retain[1 - place] == 1


def test_a_frozen_encoder_takes_nothing_from_the_budget_and_no_time_for_a_second_encoding():
    frozen = Net(64)
    frozen.requires_grad_(False)
    encoders = [encoder("video", frozen), encoder("text", Net(16))]
    plan = plan_graph_budget(encoders, [torch.randn(40, 8)] * 2, chunk_size=10, graph_memory_gb=10 * 16 * 4 * 4 / GB)
    assert plan.retain == (4, 4)
    assert plan.cost == 1


def test_a_budget_for_less_than_a_chunk_is_refused():
    with pytest.raises(
        ConfigError, match=r"graph_memory_gb is 1e-09, but the graph of one chunk of 10 rows holds 6.4e-07 GB"
    ):
        plan_graph_budget([encoder("video", Net(16))], [torch.randn(40, 8)], chunk_size=10, graph_memory_gb=1e-9)


def test_the_largest_of_chunks_that_differ_in_shape_is_measured():
    class Frames(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).mean(1)

    clips, pictures = torch.randn(12, 5, 8), torch.randn(20, 1, 8)
    for order in (RaggedRows([clips, pictures]), RaggedRows([pictures, clips])):
        plan = plan_graph_budget([encoder("video", Frames(16))], [order], chunk_size=4, graph_memory_gb=1.0)
        assert plan.chunks == (8,)
        assert plan.graph_bytes == (4 * 5 * 16 * 4,)


def test_measuring_changes_no_statistics():
    net = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    plan_graph_budget([encoder("video", net)], [torch.randn(40, 8)], chunk_size=10, graph_memory_gb=1.0)
    assert net[1].num_batches_tracked == 0
    assert not net[1].running_mean.any()


def test_the_cost_is_that_of_the_replays():
    facts = {"chunks": (8, 8), "graph_bytes": (10, 10), "seconds": (1.0, 1.0)}
    for keep, cost in [((0, 0), 4 / 3), ((4, 4), 3.5 / 3), ((8, 8), 1.0), ((8, 0), 3.5 / 3)]:
        assert GraphBudget(retain=keep, **facts).cost == pytest.approx(cost)
    assert GraphBudget(retain=(0, 0), **facts).peak_bytes == 10
    assert GraphBudget(retain=(2, 3), **facts).peak_bytes == 50


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_count_is_what_the_allocator_gave():
    e = encoder("video", Net(512, depth=4).cuda())
    chunk = split_chunks(e, torch.randn(4096, 8, device="cuda"), chunk_size=4096, seed=0)[0][0]
    chunk.embed()  # cuBLAS takes its workspace at the first call
    before = torch.cuda.memory_allocated()
    graph = chunk.embed()
    held = torch.cuda.memory_allocated() - before - graph.nbytes
    assert graph_bytes(chunk) == pytest.approx(held, rel=0.01)
