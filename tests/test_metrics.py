import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipact.metrics import best_ranks, recall, top_k


def _cases(draw, *, distinct):
    queries, items = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    if distinct:
        scores = torch.randperm(queries * items, generator=generator).reshape(queries, items).float()
    else:
        scores = torch.randint(0, 3, (queries, items), generator=generator).float()
    ids = torch.randint(0, 4, (queries + items,), generator=generator)
    return scores, ids[:queries], ids[queries:]


@given(st.data())
def test_recall_is_what_sorting_says(data):
    scores, query_ids, item_ids = _cases(data.draw, distinct=True)
    for k in (1, 2, 5):
        hits = [
            bool((item_ids[row.argsort(descending=True)[:k]] == own).any())
            for row, own in zip(scores, query_ids, strict=True)
        ]
        assert recall(scores, query_ids, item_ids, ks=[k])[k] == pytest.approx(sum(hits) / len(hits))


@given(st.data())
def test_ties_are_never_in_our_favour(data):
    scores, query_ids, item_ids = _cases(data.draw, distinct=False)
    # The worst order that the scores allow: among equals, what is right comes last.
    right = query_ids[:, None] == item_ids
    worst = scores - 0.25 * right
    assert torch.equal(best_ranks(scores, query_ids, item_ids), best_ranks(worst, query_ids, item_ids))


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 99))
def test_top_k_is_what_topk_says(rows, labels, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(rows, labels, generator=generator)
    label_ids = torch.randint(0, labels, (rows,), generator=generator)
    for k in range(1, labels + 1):
        expected = (scores.topk(k).indices == label_ids[:, None]).any(1).double().mean().item()
        assert top_k(scores, label_ids, k=k) == pytest.approx(expected)


def test_a_model_that_says_the_same_of_everything_is_never_right():
    scores, ids = torch.zeros(4, 4), torch.arange(4)
    assert recall(scores, ids, ids, ks=[1, 3, 4]) == {1: 0.0, 3: 0.0, 4: 1.0}
    assert [top_k(scores, ids, k=k) for k in (1, 3, 4)] == [0.0, 0.0, 1.0]


def test_a_query_without_a_right_item_is_missed():
    scores = torch.tensor([[1.0, 2.0]])
    assert recall(scores, torch.tensor([7]), torch.tensor([1, 2]), ks=[2]) == {2: 0.0}
