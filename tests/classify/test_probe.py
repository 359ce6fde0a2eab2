"""Probes against scikit-learn and against their formula."""

import numpy as np
import pytest

from clipact.classify.probe import KNNProbe
from clipact.errors import UsageError
from clipact.evaluate.fit_probes import draw_shots, fit_linear


@pytest.fixture(scope="module")
def clouds():
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 12)
    rows = generator.normal(size=(4, 16))[truth] + 1.5 * generator.normal(size=(48, 16))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), truth


@pytest.mark.parametrize("strength", [0.5, 10.0])
def test_a_linear_probe_is_scikit_learns_logistic_regression(clouds, strength):
    linear_model = pytest.importorskip("sklearn.linear_model")
    vectors, truth = clouds
    theirs = linear_model.LogisticRegression(C=strength, max_iter=10_000, tol=1e-10)
    theirs.fit(vectors.astype(float), truth)
    ours = fit_linear(vectors, truth, labels=4, C=strength)
    np.testing.assert_allclose(ours.weight, theirs.coef_, atol=2e-5)
    wanted = theirs.decision_function(vectors)
    seen = ours.logits(vectors)
    # A constant on all logits of a row changes nothing, and the bias is free to have one.
    np.testing.assert_allclose(seen - seen.mean(1, keepdims=True), wanted - wanted.mean(1, keepdims=True), atol=2e-5)


def test_a_label_without_examples_gets_the_least_that_can_be_said(clouds):
    vectors, truth = clouds
    probe = fit_linear(vectors, truth, labels=5)
    assert (probe.logits(vectors).argmax(1) != 4).all()


def test_votes_are_counted_in_plain_loops(clouds):
    vectors, truth = clouds
    learnt, asked = vectors[::2], vectors[1::2]
    found = KNNProbe(learnt, truth[::2], labels=5, k=3, temperature=0.1).logits(asked)
    for row, query in enumerate(asked):
        order = sorted(range(len(learnt)), key=lambda i: -float(query @ learnt[i]))[:3]
        votes = np.zeros(5)
        for i in order:
            votes[truth[::2][i]] += np.exp(float(query @ learnt[i]) / 0.1)
        shares = votes / votes.sum()
        np.testing.assert_allclose(np.exp(found[row]), shares, atol=1e-5)
    assert KNNProbe(learnt, truth[::2], labels=4, k=1000).logits(asked).shape == (24, 4)


def test_shots_are_drawn_without_doubles_and_the_same_again(clouds):
    _, truth = clouds
    for shots in (1, 2, 4, 8):
        draws = list(draw_shots(truth, shots=shots, draws=3, seed=7))
        assert all((np.bincount(truth[rows]) == shots).all() and len(set(rows)) == len(rows) for rows in draws)
        assert all(
            np.array_equal(a, b) for a, b in zip(draws, draw_shots(truth, shots=shots, draws=3, seed=7), strict=True)
        )
        assert not np.array_equal(draws[0], draws[1])
    with pytest.raises(UsageError, match="shots is 16, and label number 0 has 12"):
        next(draw_shots(truth, shots=16, draws=1))


def test_what_cannot_be_learnt_is_refused(clouds):
    vectors, truth = clouds
    with pytest.raises(UsageError, match="two at least"):
        fit_linear(vectors[:5], truth[:5], labels=4)
    with pytest.raises(UsageError, match="label numbers go to 3; there are 3 labels"):
        fit_linear(vectors, truth, labels=3)
    with pytest.raises(UsageError, match="k is 0"):
        KNNProbe(vectors, truth, labels=4, k=0)
