import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score
from torchmetrics.functional.classification import (
    binary_auroc,
    multiclass_calibration_error,
    multilabel_average_precision,
)

from clipact.metrics import (
    auroc,
    average_precision,
    calibration_error,
    confusion,
    mean_ap,
    mean_ap_of_rows,
    most_confused,
    probabilities,
    reliability,
)


def _drawn(data, *, tied):
    count = data.draw(st.integers(2, 40))
    random = np.random.default_rng(data.draw(st.integers(0, 9999)))
    scores = random.integers(0, 4, count) / 4 if tied else random.random(count)
    return scores, random.random(count) < 0.4


@pytest.mark.parametrize("tied", [False, True])
@given(data=st.data())
def test_average_precision_and_auroc_are_scikit_learns(tied, data):
    scores, true = _drawn(data, tied=tied)
    if true.any():
        assert average_precision(scores, true) == pytest.approx(average_precision_score(true, scores))
    if true.any() and not true.all():
        assert auroc(scores, true) == pytest.approx(roc_auc_score(true, scores))
        theirs = binary_auroc(torch.tensor(scores), torch.tensor(true).int())
        assert auroc(scores, true) == pytest.approx(theirs.item(), abs=1e-6)


def test_what_has_no_answer_is_not_a_number_and_does_not_count():
    scores, never = np.array([0.1, 0.2]), np.array([False, False])
    assert np.isnan(average_precision(scores, never))
    assert np.isnan(auroc(scores, never))
    assert np.isnan(auroc(scores, ~never))
    table, true = np.array([[0.9, 0.5], [0.1, 0.5]]), np.array([[True, False], [False, False]])
    assert mean_ap(table, true) == 1.0
    assert np.isnan(mean_ap(table, np.zeros((2, 2), bool)))


@given(st.integers(2, 50), st.integers(1, 30), st.integers(0, 99))
def test_mean_ap_is_torchmetrics_over_the_labels_that_occur(rows, labels, seed):
    random = np.random.default_rng(seed)
    scores, true = random.integers(0, 8, (rows, labels)) / 8, random.random((rows, labels)) < 0.3
    occur = true.any(0)
    if occur.any():
        theirs = (
            multilabel_average_precision(
                torch.tensor(scores[:, occur]).float(),
                torch.tensor(true[:, occur]).long(),
                num_labels=int(occur.sum()),
                average="macro",
            )
            if occur.sum() > 1
            else torch.tensor(average_precision_score(true[:, occur][:, 0], scores[:, occur][:, 0]))
        )
        assert mean_ap(scores, true) == pytest.approx(theirs.item(), abs=1e-6)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 99), st.booleans())
def test_mean_ap_of_drawn_rows_is_mean_ap_of_those_rows(rows, labels, seed, tied):
    random = np.random.default_rng(seed)
    scores = random.integers(0, 4, (rows, labels)) / 4 if tied else random.random((rows, labels))
    true = random.random((rows, labels)) < 0.3
    figure = mean_ap_of_rows(scores, true)
    for drawn in (np.arange(rows), random.integers(0, rows, rows), random.integers(0, rows, 3 * rows)):
        assert figure(drawn) == pytest.approx(mean_ap(scores[drawn], true[drawn]), nan_ok=True)


def test_many_labels_of_which_most_are_missing_give_scikit_learns_and_torchmetrics_figures():
    """Seven hundred labels, ties everywhere, most labels without a sample: what a long-tailed set looks like."""
    random = np.random.default_rng(0)
    rows, labels = 300, 700
    truth = random.choice(labels, 90, replace=False)[random.integers(0, 90, rows)]
    scores = random.integers(-40, 40, (rows, labels)) / 8
    scores[np.arange(rows), truth] += random.integers(0, 6, rows)
    true = np.eye(labels, dtype=bool)[truth]
    there = np.unique(truth)
    expected = average_precision_score(true[:, there], scores[:, there], average="macro")
    assert mean_ap(scores, true) == pytest.approx(expected)
    assert mean_ap_of_rows(scores, true)(np.arange(rows)) == pytest.approx(expected)
    chances = probabilities(scores)
    # With ties at the top torchmetrics takes the first; so is it here, on both sides.
    found = calibration_error(chances.max(1), chances.argmax(1) == truth)
    theirs = multiclass_calibration_error(torch.tensor(chances), torch.tensor(truth), num_classes=labels, n_bins=15)
    assert found == pytest.approx(theirs.item(), abs=1e-6)


@given(st.integers(1, 60), st.integers(2, 9), st.integers(0, 99))
def test_confusion_is_scikit_learns(rows, labels, seed):
    random = np.random.default_rng(seed)
    truth, answers = random.integers(0, labels, rows), random.integers(0, labels, rows)
    assert np.array_equal(
        confusion(answers, truth, labels=labels), confusion_matrix(truth, answers, labels=range(labels))
    )


def test_the_most_confused_pairs_come_worst_first():
    matrix = np.array([[9, 3, 0], [3, 0, 1], [0, 0, 5]])
    assert most_confused(matrix) == [(1, 0, 3), (0, 1, 3), (1, 2, 1)]
    assert most_confused(matrix, count=1) == [(1, 0, 3)]
    assert most_confused(np.eye(3, dtype=np.int64)) == []


@given(st.integers(1, 80), st.integers(2, 6), st.integers(0, 99))
def test_calibration_error_is_torchmetrics(rows, labels, seed):
    random = np.random.default_rng(seed)
    chances = probabilities(random.normal(size=(rows, labels)) * 3)
    truth = random.integers(0, labels, rows)
    found = calibration_error(chances.max(1), chances.argmax(1) == truth)
    theirs = multiclass_calibration_error(torch.tensor(chances), torch.tensor(truth), num_classes=labels, n_bins=15)
    assert found == pytest.approx(theirs.item(), abs=1e-5)


def test_bins_hold_every_sample_once():
    confidence = np.array([0.0, 0.1, 0.2, 0.200001, 1.0])
    bins = reliability(confidence, np.array([True, False, True, True, False]), bins=5)
    assert [bin.count for bin in bins] == [3, 1, 0, 0, 1]
    assert bins[0].right == pytest.approx(2 / 3)
    assert np.isnan(bins[2].right)


def test_probabilities_are_a_softmax_even_of_large_logits():
    logits = np.array([[1000.0, 999.0], [-1000.0, -1000.0]], np.float32)
    np.testing.assert_allclose(probabilities(logits), torch.tensor(logits).double().softmax(1).numpy())
