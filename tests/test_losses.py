"""The losses against their definitions, written out row by row; the tiled ones against the dense ones."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clipact.losses import LOSSES, bound_log_scale, find_positives, info_nce, sigmoid
from clipact.losses.info_nce import Positives


def pairs(rows: int = 6, dim: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    visual, text = (F.normalize(torch.randn(rows, dim, dtype=torch.float64), dim=-1) for _ in range(2))
    return visual.requires_grad_(), text.requires_grad_()


def by_definition(visual, text, scale, positives, smoothing=0.0):
    visual, text = visual.detach(), text.detach()
    rows, total = len(visual), 0.0
    for queries, keys in ((visual, text), (text, visual)):
        for i in range(rows):
            scores = [math.exp(scale * float(queries[i] @ keys[j])) for j in range(rows)]
            log_p = [math.log(score / sum(scores)) for score in scores]
            total -= (1 - smoothing) * sum(log_p[j] for j in positives[i]) / len(positives[i])
            total -= smoothing * sum(log_p) / rows
    return total / (2 * rows)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_equals_its_definition(smoothing):
    visual, text = pairs()
    scale = torch.tensor(7.0, dtype=torch.float64)
    pictures = torch.tensor([1, 1, 2, 3, 4, 5])
    sentences = torch.tensor([10, 11, 12, 10, 13, 14])
    positives = [{0, 1, 3}, {0, 1}, {2}, {0, 3}, {4}, {5}]  # a picture's captions; a sentence said twice; no chain
    got = info_nce(visual, text, scale=scale, ids=(pictures, sentences), label_smoothing=smoothing)
    assert got.item() == pytest.approx(by_definition(visual, text, 7.0, positives, smoothing), rel=1e-12)


def test_distinct_ids_are_no_ids():
    visual, text = pairs()
    scale = torch.tensor(7.0, dtype=torch.float64)
    plain = info_nce(visual, text, scale=scale)
    assert torch.allclose(plain, info_nce(visual, text, scale=scale, ids=(torch.arange(6),)))
    assert plain.item() == pytest.approx(by_definition(visual, text, 7.0, [{i} for i in range(6)]), rel=1e-12)


def test_sides_may_be_exchanged():
    visual, text = pairs()
    scale = torch.tensor(3.0, dtype=torch.float64)
    ids = (torch.tensor([1, 1, 2, 3, 4, 5]),)
    assert torch.allclose(info_nce(visual, text, scale=scale, ids=ids), info_nce(text, visual, scale=scale, ids=ids))


def test_gradient():
    visual, text = pairs(4, 3)
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    ids = (torch.tensor([1, 1, 2, 3]),)
    assert torch.autograd.gradcheck(
        lambda v, t, s: info_nce(v, t, scale=s, ids=ids, label_smoothing=0.1), (visual, text, scale)
    )


def test_positives_are_those_that_agree_in_any_id():
    found = find_positives((torch.tensor([1, 1, 2, 3]), torch.tensor([5, 6, 6, 7])))
    expected = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    assert found.tolist() == [[bool(x) for x in row] for row in expected]


def test_positives_are_summed_without_their_matrix():
    torch.manual_seed(0)
    for kinds in (1, 2, 3, 4):
        ids = [torch.randint(0, 6, (20,)) for _ in range(kinds)]
        x = torch.randn(20, 3, dtype=torch.float64)
        torch.testing.assert_close(Positives.of(ids).sums(x), find_positives(ids).double() @ x)


def test_partitions_that_say_nothing_new_cost_nothing():
    distinct, pairs, halves = torch.arange(8), torch.tensor([1, 1, 2, 2, 3, 3, 4, 4]), torch.tensor([0] * 4 + [1] * 4)
    assert Positives.of([distinct]).partitions == ()
    assert len(Positives.of([distinct, pairs, 7 - pairs]).partitions) == 1
    assert len(Positives.of([distinct, pairs, halves]).partitions) == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_sigmoid_equals_its_definition(smoothing):
    visual, text = (side.detach() for side in pairs())
    scale, bias = torch.tensor(7.0, dtype=torch.float64), torch.tensor(-3.0, dtype=torch.float64)
    pictures, sentences = torch.tensor([1, 1, 2, 3, 4, 5]), torch.tensor([10, 11, 12, 10, 13, 14])
    positives = [{0, 1, 3}, {0, 1}, {2}, {0, 3}, {4}, {5}]
    total = 0.0
    for i in range(6):
        for j in range(6):
            together = 1 / (1 + math.exp(-(7.0 * float(visual[i] @ text[j]) - 3.0)))
            answer = (1 - smoothing) * (j in positives[i]) + smoothing / 2
            total -= answer * math.log(together) + (1 - answer) * math.log(1 - together)
    got = sigmoid(visual, text, scale=scale, bias=bias, ids=(pictures, sentences), label_smoothing=smoothing)
    assert got.item() == pytest.approx(total / 6, rel=1e-12)


def value_and_gradients(loss, inputs: dict[str, Tensor], **options) -> list[Tensor]:
    leaves = {name: value.detach().clone().requires_grad_() for name, value in inputs.items()}
    value = loss(leaves["visual"], leaves["text"], scale=leaves["scale"], bias=leaves["bias"], **options)
    (3 * value).backward()
    return [value.detach()] + [torch.zeros(()) if x.grad is None else x.grad for x in leaves.values()]


def assert_equal(got: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    for one, other in zip(got, wanted, strict=True):
        assert (one - other).norm() <= tolerance * max(1.0, float(other.norm()))


@st.composite
def cases(draw):
    """Embeddings, ids that repeat or not, a range of rows, and everything else that a loss takes."""
    b, d = draw(st.integers(1, 14)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def unit() -> Tensor:
        return F.normalize(torch.randn(b, d, dtype=torch.float64, generator=generator), dim=-1)

    inputs = {"visual": unit(), "text": unit()}
    inputs["scale"] = torch.tensor(draw(st.floats(0.5, 100.0)), dtype=torch.float64)
    inputs["bias"] = torch.tensor(draw(st.floats(-12.0, 5.0)), dtype=torch.float64)
    groups = draw(st.lists(st.integers(1, 20), max_size=3))
    options = {
        "ids": [torch.randint(0, number, (b,), generator=generator) for number in groups],
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 0.5])),
    }
    return inputs, options, draw(st.integers(1, 16))


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=60, deadline=None)
@given(case=cases(), ends=st.tuples(st.integers(0, 14), st.integers(0, 14)))
def test_tiled_equals_dense(name, case, ends):
    inputs, options, tile = case
    rows = slice(min(ends), max(ends))
    dense = value_and_gradients(LOSSES[name], inputs, rows=rows, **options)
    tiled = value_and_gradients(LOSSES[name], inputs, rows=rows, tile=tile, **options)
    assert_equal(tiled, dense, 1e-12)


@pytest.mark.parametrize("tile", [None, 3])
@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=20, deadline=None)
@given(case=cases(), cuts=st.lists(st.integers(0, 14), max_size=3))
def test_row_ranges_add_up_to_the_whole(name, tile, case, cuts):
    inputs, options, _ = case
    b = len(inputs["visual"])
    edges = sorted({0, b, *(cut for cut in cuts if cut < b)})
    parts = [
        value_and_gradients(LOSSES[name], inputs, rows=slice(start, stop), tile=tile, **options)
        for start, stop in pairwise(edges)
    ]
    whole = value_and_gradients(LOSSES[name], inputs, **options)
    assert_equal([sum(share) for share in zip(*parts, strict=True)], whole, 1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_of_the_tiled_loss(name):
    visual, text = pairs(5, 3)
    scale, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (2.0, -1.0))
    options = {"ids": (torch.tensor([1, 1, 2, 3, 3]), torch.tensor([5, 6, 6, 7, 8])), "label_smoothing": 0.1, "tile": 2}
    assert torch.autograd.gradcheck(
        lambda v, t, s, b: LOSSES[name](v, t, scale=s, bias=b, rows=slice(1, 4), **options), (visual, text, scale, bias)
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("tile", [None, 4])
def test_a_hundred_times_a_cosine_of_one_stays_finite_and_right_in_32_bits(name, tile):
    torch.manual_seed(0)
    x = F.normalize(torch.randn(12, 6, dtype=torch.float64), dim=-1)
    inputs = {
        "visual": x,
        "text": torch.cat([x[:6], -x[6:]]),
        "scale": torch.tensor(100.0),
        "bias": torch.tensor(-10.0),
    }
    inputs = {key: value.double() for key, value in inputs.items()}
    wanted = value_and_gradients(LOSSES[name], inputs)
    single = value_and_gradients(LOSSES[name], {key: value.float() for key, value in inputs.items()}, tile=tile)
    assert_equal([value.double() for value in single], wanted, 1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("tile", [None, 4])
def test_16_bit_embeddings_and_autocast_are_computed_in_32_bits(name, tile):
    torch.manual_seed(0)
    visual, text = (F.normalize(torch.randn(10, 8), dim=-1).bfloat16() for _ in range(2))
    inputs = {"visual": visual, "text": text, "scale": torch.tensor(50.0), "bias": torch.tensor(-10.0)}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen = value_and_gradients(LOSSES[name], inputs, tile=tile)
    wanted = value_and_gradients(LOSSES[name], {key: value.double() for key, value in inputs.items()})
    assert seen[0].dtype == torch.float32
    assert seen[0].item() == pytest.approx(wanted[0].item(), rel=1e-6)
    assert seen[1].dtype == torch.bfloat16
    assert (seen[1].double() - wanted[1]).norm() < 2**-8 * wanted[1].norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", LOSSES)
def test_tiled_equals_dense_on_cuda(name):
    torch.manual_seed(0)
    inputs = {side: F.normalize(torch.randn(300, 16, dtype=torch.float64), dim=-1) for side in ("visual", "text")}
    inputs |= {"scale": torch.tensor(30.0, dtype=torch.float64), "bias": torch.tensor(-5.0, dtype=torch.float64)}
    ids = [torch.randint(0, 40, (300,)) for _ in range(3)]
    wanted = value_and_gradients(LOSSES[name], inputs, ids=ids, label_smoothing=0.1)
    there = {key: value.cuda() for key, value in inputs.items()}
    ids = [vector.cuda() for vector in ids]
    seen = value_and_gradients(LOSSES[name], there, ids=ids, label_smoothing=0.1, tile=64)
    assert_equal([value.cpu() for value in seen], wanted, 1e-12)


def test_tiles_hold_no_matrix_of_all_pairs():
    """No tensor of b x b is made, forward or backward."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            made = function(*args, **(kwargs or {}))
            for one in made if isinstance(made, (tuple, list)) else [made]:
                if isinstance(one, Tensor):
                    largest = max(largest, one.numel())
            return made

    b, d = 200, 4
    inputs = {name: torch.randn(b, d) for name in ("visual", "text")} | {
        "scale": torch.tensor(5.0),
        "bias": torch.tensor(0.0),
    }
    ids = [torch.randint(0, 20, (b,)) for _ in range(3)]
    for loss in LOSSES.values():
        with Watch():
            value_and_gradients(loss, inputs, ids=ids, label_smoothing=0.1, tile=16)
    assert largest <= 3 * b * d


def test_scale_is_moved_back_between_1_and_100():
    for seen, bounded in ((9.0, 100.0), (-1.0, 1.0), (2.0, math.exp(2.0))):
        log_scale = nn.Parameter(torch.tensor(seen))
        bound_log_scale(log_scale)
        assert log_scale.exp().item() == pytest.approx(bounded)
        assert log_scale.requires_grad
