import numpy as np
import pytest
from scipy.stats import binomtest

from clipact.metrics import bootstrap, mcnemar, paired_bootstrap


def _share(right):
    return lambda rows: float(right[rows].mean())


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """Of 200 experiments with 60 samples each about 95 % of the intervals hold the true share."""
    random = np.random.default_rng(0)
    held = 0
    for experiment in range(200):
        right = random.random(60) < 0.7
        interval = bootstrap(_share(right), 60, draws=300, seed=experiment)
        held += interval.low <= 0.7 <= interval.high
    assert 0.89 <= held / 200 <= 0.99


def test_clusters_hold_the_truth_where_independent_draws_do_not():
    """Ten samples a person, all alike: only drawing persons gives intervals that are wide enough."""
    random = np.random.default_rng(1)
    held = {"persons": 0, "samples": 0}
    for experiment in range(100):
        right = np.repeat(random.random(30) < 0.6, 10)
        groups = [f"person {i // 10}" for i in range(300)]
        for name, clusters in (("persons", groups), ("samples", None)):
            interval = bootstrap(_share(right), 300, groups=clusters, draws=200, seed=experiment)
            held[name] += interval.low <= 0.6 <= interval.high
    assert held["persons"] >= 85
    assert held["samples"] <= 60


def test_the_same_seed_gives_the_same_interval():
    right = np.random.default_rng(0).random(40) < 0.5
    one, again, other = (bootstrap(_share(right), 40, draws=100, seed=seed) for seed in (0, 0, 1))
    assert one == again
    assert (one.low, one.high) != (other.low, other.high) or one.value == other.value
    assert one.value == right.mean()
    assert one.low <= one.value <= one.high


def test_draws_without_an_answer_are_left_out():
    def figure(rows):
        return float("nan") if (rows == 0).any() else 0.5

    interval = bootstrap(figure, 3, draws=200)
    assert np.isnan(interval.value)
    assert (interval.low, interval.high) == (0.5, 0.5)
    assert np.isnan(bootstrap(lambda rows: float("nan"), 3, draws=5).low)


def test_a_difference_is_taken_of_the_same_samples():
    """Two models that are right on nearly the same samples differ more surely than their intervals suggest."""
    random = np.random.default_rng(0)
    one = random.random(400) < 0.5
    other = one.copy()
    other[np.flatnonzero(one)[:20]] = False
    difference = paired_bootstrap(_share(one), _share(other), 400)
    apart = bootstrap(_share(one), 400)
    assert difference.value == pytest.approx(0.05)
    assert difference.low > 0.02
    assert difference.p < 0.01
    assert apart.high - apart.low > 2 * (difference.high - difference.low)
    same = paired_bootstrap(_share(one), _share(one), 400)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("seed", range(20))
def test_mcnemar_is_the_exact_binomial_test(seed):
    random = np.random.default_rng(seed)
    one, other = random.random(90) < 0.6, random.random(90) < 0.45
    ours, theirs = int((one & ~other).sum()), int((other & ~one).sum())
    assert mcnemar(one, other) == pytest.approx(binomtest(ours, ours + theirs, 0.5).pvalue)


def test_mcnemar_of_large_numbers_and_of_none():
    one = np.ones(20_000, bool)
    other = np.arange(20_000) < 9_000
    assert mcnemar(one, other) < 1e-300
    assert mcnemar(one, one) == 1.0
