import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from torchmetrics.functional.classification import multiclass_accuracy
from torchmetrics.functional.retrieval import retrieval_hit_rate

from clipact.metrics import best_ranks, hits, match_captions, mean_per_class, median_rank, per_class, recall, top_k


def same_ids(query_ids, item_ids):
    return [np.flatnonzero(item_ids == own) for own in query_ids]


def _cases(draw, *, distinct):
    queries, items = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    if distinct:
        scores = random.permutation(queries * items).reshape(queries, items).astype(np.float32)
    else:
        scores = random.integers(0, 3, (queries, items)).astype(np.float32)
    ids = random.integers(0, 4, queries + items)
    return scores, ids[:queries], ids[queries:]


@given(st.data())
def test_recall_is_torchmetrics_hit_rate(data):
    scores, query_ids, item_ids = _cases(data.draw, distinct=True)
    for k in (1, 2, 5):
        found = [
            retrieval_hit_rate(torch.tensor(row), torch.tensor(item_ids == own), top_k=k).item()
            if (item_ids == own).any()
            else 0.0
            for row, own in zip(scores, query_ids, strict=True)
        ]
        assert recall(scores, same_ids(query_ids, item_ids), ks=[k])[k] == pytest.approx(np.mean(found))


@given(st.data())
def test_ties_are_never_in_our_favour(data):
    scores, query_ids, item_ids = _cases(data.draw, distinct=False)
    # The worst order that the scores allow: among equals, what is right comes last.
    worst = (scores - 0.25 * (query_ids[:, None] == item_ids)).astype(np.float32)
    right = same_ids(query_ids, item_ids)
    assert np.array_equal(best_ranks(scores, right), best_ranks(worst, right))


@given(st.integers(1, 40), st.integers(3, 8), st.integers(0, 99))
def test_top_k_is_scikit_learns_and_torchmetrics(rows, labels, seed):
    random = np.random.default_rng(seed)
    scores = random.random((rows, labels)).astype(np.float32)
    truth = random.integers(0, labels, rows)
    for k in range(1, labels):
        found = top_k(scores, truth, k=k)
        assert found == pytest.approx(top_k_accuracy_score(truth, scores, k=k, labels=range(labels)))
        theirs = multiclass_accuracy(
            torch.tensor(scores), torch.tensor(truth), num_classes=labels, average="micro", top_k=k
        )
        assert found == pytest.approx(theirs.item())


@given(st.integers(1, 40), st.integers(3, 8), st.integers(0, 99))
def test_of_several_true_labels_the_best_counts_and_the_others_stand_in_nobodys_way(rows, labels, seed):
    random = np.random.default_rng(seed)
    scores = random.integers(0, 5, (rows, labels)).astype(np.float32)
    truth = random.random((rows, labels)) < 0.3
    truth[np.arange(rows), random.integers(0, labels, rows)] = True
    for k in range(1, labels):
        found = hits(scores, truth, k=k)
        for line, own, hit in zip(scores, truth, found, strict=True):
            before = sorted(line[~own])[::-1][:k]  # the k best wrong ones; one of k places must be left
            assert hit == (len(before) < k or line[own].max() > before[-1])
    one = truth.argmax(1)
    np.testing.assert_array_equal(hits(scores, np.eye(labels, dtype=bool)[one]), hits(scores, one))


@given(st.integers(1, 40), st.integers(2, 6), st.integers(0, 99))
def test_mean_per_class_is_scikit_learns_and_leaves_out_what_is_absent(rows, labels, seed):
    random = np.random.default_rng(seed)
    truth, answers = random.integers(0, labels, rows), random.integers(0, labels, rows)
    found = mean_per_class(answers == truth, truth)
    if len(set(truth.tolist())) > 1 and set(answers) <= set(truth):  # of anything else scikit-learn warns
        assert found == pytest.approx(balanced_accuracy_score(truth, answers))
    each = per_class(answers == truth, truth, labels=labels)
    assert np.isnan(each).sum() == labels - len(set(truth.tolist()))
    assert found == pytest.approx(np.mean([(answers[truth == own] == own).mean() for own in set(truth.tolist())]))


@pytest.mark.parametrize("tied", [False, True])
def test_many_labels_of_which_most_are_missing_give_scikit_learns_figures(tied):
    """Seven hundred labels, most of them without a sample; with ties ours is scikit-learn's least lucky order."""
    random = np.random.default_rng(0)
    rows, labels = 300, 700
    truth = random.choice(labels, 90, replace=False)[random.integers(0, 90, rows)]
    scores = random.integers(0, 400, (rows, labels)).astype(np.float64) if tied else random.random((rows, labels)) * 400
    scores[np.arange(rows), truth] += random.integers(0, 9, rows) * 50
    unlucky = scores.copy()
    unlucky[np.arange(rows), truth] -= 1e-6
    for k in (1, 5, 50):
        expected = top_k_accuracy_score(truth, unlucky, k=k, labels=range(labels))
        assert top_k(scores, truth, k=k) == pytest.approx(expected)
        theirs = multiclass_accuracy(
            torch.tensor(unlucky), torch.tensor(truth), num_classes=labels, average="micro", top_k=k
        )
        assert top_k(scores, truth, k=k) == pytest.approx(theirs.item())
    answers = unlucky.argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn: answers that are nobody's truth
        assert mean_per_class(hits(scores, truth), truth) == pytest.approx(balanced_accuracy_score(truth, answers))


@given(st.data())
def test_the_median_rank_is_that_of_positions_in_a_sorted_list(data):
    scores, query_ids, item_ids = _cases(data.draw, distinct=True)
    positions = []
    for row, own in zip(scores, query_ids, strict=True):
        ordered = item_ids[np.argsort(-row)]
        positions.append(int(np.flatnonzero(ordered == own)[0]) if (ordered == own).any() else len(row))
    assert median_rank(best_ranks(scores, same_ids(query_ids, item_ids))) == np.median(positions) + 1


def test_a_model_that_says_the_same_of_everything_is_never_right():
    scores, ids = np.zeros((4, 4), np.float32), np.arange(4)
    assert recall(scores, same_ids(ids, ids), ks=[1, 3, 4]) == {1: 0.0, 3: 0.0, 4: 1.0}
    assert [top_k(scores, ids, k=k) for k in (1, 3, 4)] == [0.0, 0.0, 1.0]


def test_what_is_not_a_number_is_never_right():
    scores = np.full((2, 3), np.nan, np.float32)
    assert not hits(scores, np.array([0, 1]), k=1).any()
    assert not hits(scores, np.array([0, 1]), k=2).any()


def test_a_query_without_a_right_item_is_missed():
    scores = np.array([[1.0, 2.0]])
    assert recall(scores, same_ids([7], np.array([1, 2])), ks=[2]) == {2: 0.0}


def test_ranks_are_counted_from_one_where_they_are_told():
    scores = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert median_rank(best_ranks(scores, list(np.arange(3)[:, None]))) == 2.0


def test_a_caption_that_several_visuals_share_is_right_for_each_of_them():
    texts, text_of = ["b", "a", "a", "c", "b"], np.array([0, 0, 1, 2, 2])
    visuals_of_text, texts_of_visual = match_captions(texts, text_of, 4)
    assert [rows.tolist() for rows in visuals_of_text] == [[0, 2], [0, 1], [0, 1], [2], [0, 2]]
    assert [rows.tolist() for rows in texts_of_visual] == [[0, 1, 2, 4], [1, 2], [0, 3, 4], []]


def test_one_caption_of_eight_visuals_is_found_both_ways():
    visuals_of_text, texts_of_visual = match_captions(["a person"] * 8, np.arange(8), 8)
    scores = np.random.default_rng(0).random((1, 8)).repeat(8, 0)
    assert recall(scores, visuals_of_text, ks=[1]) == recall(scores.T, texts_of_visual, ks=[1]) == {1: 1.0}


@given(st.integers(1, 30), st.integers(1, 9), st.integers(1, 30), st.integers(0, 99))
def test_matches_of_captions_are_those_of_all_pairs(count, different, visuals, seed):
    random = np.random.default_rng(seed)
    texts = [f"caption {number}" for number in random.integers(0, different, count)]
    text_of = random.integers(0, visuals, count)
    has = [{texts[text] for text in np.flatnonzero(text_of == visual)} for visual in range(visuals)]
    visuals_of_text, texts_of_visual = match_captions(texts, text_of, visuals)
    pairs = {(text, visual) for text in range(count) for visual in range(visuals) if texts[text] in has[visual]}
    assert {(text, int(visual)) for text, own in enumerate(visuals_of_text) for visual in own} == pairs
    assert {(int(text), visual) for visual, own in enumerate(texts_of_visual) for text in own} == pairs
