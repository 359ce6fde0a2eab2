from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression

from clipact.calibration import OOD_SCORES, IndependentProbabilities, LabelledClips, fit_params
from clipact.calibration.conformal import fewest, label_sets, upper_quantile
from clipact.calibration.multi_label import fit_independent, fit_thresholds, log_odds
from clipact.calibration.temperature import fit_temperature, log_sum_exp, negative_log_likelihood
from clipact.errors import CalibrationError
from clipact.metrics import calibration_error, probabilities


def drawn(count, *, labels=6, seed=0, sharper=1.0, groups=None):
    """Clips whose logits, divided by `sharper`, are calibrated; background logits that fit other clips better."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, labels)) * 2
    truth = np.array([rng.choice(labels, p=row) for row in probabilities(logits)])
    return LabelledClips(
        logits=logits * sharper,
        background=rng.normal(size=(count, 9)),
        near=np.zeros((9, labels), bool),
        truth=truth,
        groups=groups,
    )


def test_the_temperature_is_the_one_that_scipy_finds():
    clips = drawn(400, sharper=3.0)
    ours = fit_temperature(clips.logits, clips.truth)
    theirs = minimize_scalar(
        lambda cold: negative_log_likelihood(clips.logits * cold, clips.truth), bounds=(0.02, 50), method="bounded"
    )
    assert ours == pytest.approx(1 / theirs.x, rel=1e-3)
    assert ours == pytest.approx(3, rel=0.25)


def test_calibration_error_falls_on_clips_that_nothing_was_fitted_on():
    params, metrics = fit_params(drawn(1000, sharper=4.0))
    assert metrics.clips == 500
    assert metrics.calibration_error_after < 0.1 < 0.2 < metrics.calibration_error_before
    new = drawn(2000, sharper=4.0, seed=1)
    right = new.logits.argmax(1) == new.truth
    assert calibration_error(probabilities(new.logits / params.temperature).max(1), right) < 0.05


def test_label_sets_hold_the_truth_as_often_as_was_asked_for():
    new = drawn(4000, seed=99)
    covered, kept = [], []
    for seed in range(20):
        params, _ = fit_params(drawn(200, seed=seed), coverage=0.8, false_rejection_rate=0.1)
        sets = label_sets(probabilities(new.logits / params.temperature), quantile=params.quantile)
        covered.append(sets[np.arange(len(sets)), new.truth].mean())
        fits = OOD_SCORES[params.score](new.logits, new.background, params.temperature)
        kept.append((fits >= params.threshold).mean())
    assert np.mean(covered) == pytest.approx(0.8, abs=0.02)
    assert np.mean(kept) == pytest.approx(0.9, abs=0.02)


def test_the_upper_quantile_is_exceeded_as_seldom_as_is_said():
    values = np.arange(1.0, 10)
    assert upper_quantile(values, share=0.9) == 9
    assert upper_quantile(values, share=0.5) == 5
    assert upper_quantile(values, share=0.91) == np.inf
    assert [fewest(share) for share in (0.5, 0.8, 0.9, 0.95)] == [1, 4, 9, 19]


def test_the_best_label_is_in_every_set():
    assert label_sets(np.array([[0.4, 0.35, 0.25]]), quantile=0.1).tolist() == [[True, False, False]]


def test_scores_are_what_their_papers_say():
    logits, background = np.array([[2.0, 1.0], [0.0, 0.0]]), np.array([[0.0], [3.0]])
    shares = np.exp(logits / 2) / np.exp(logits / 2).sum(1, keepdims=True)
    found = {name: score(logits, background, 2.0) for name, score in OOD_SCORES.items()}
    assert found["max_softmax"] == pytest.approx(shares.max(1))
    assert found["margin"] == pytest.approx([shares[0, 0] - shares[0, 1], 0])
    assert found["energy"] == pytest.approx(np.log(np.exp(logits).sum(1)))
    inside = np.exp(logits).sum(1) / (np.exp(logits).sum(1) + np.exp(background[:, 0]))
    assert 1 / (1 + np.exp(-found["background"])) == pytest.approx(inside)
    assert OOD_SCORES["margin"](logits[:, :1], background, 1.0).tolist() == [1, 1]
    assert np.isfinite(log_sum_exp(np.array([[1e4, -1e4]]))).all()


def test_words_near_a_label_are_no_background_for_it():
    clips = drawn(30)
    clips.near[2, 3] = True
    assert clips.among(np.array([0, 1]))[1].shape == (30, 9)
    logits, background = clips.among(np.array([1, 3]))
    assert logits.shape == (30, 2)
    assert np.array_equal(background, np.delete(clips.background, 2, axis=1))


def test_labels_by_themselves_become_as_likely_as_they_say():
    rng = np.random.default_rng(0)
    odds = rng.normal(size=(300, 4)) * 5 - 20
    true = rng.random((300, 4)) < 1 / (1 + np.exp(-(0.5 * odds + 9)))
    ours = fit_independent(odds, true)
    theirs = LogisticRegression(C=1e9).fit(odds.reshape(-1, 1), true.ravel())
    assert ours.slope == pytest.approx(theirs.coef_[0, 0], rel=0.02)
    assert ours.intercept == pytest.approx(theirs.intercept_[0], rel=0.02)
    parted = fit_independent(np.array([[-9.0, 5.0], [6.0, -8.0]]), np.eye(2, dtype=bool)[::-1])
    assert 0 < parted.slope < 1
    assert 0 < fit_independent(-odds, true).slope < 1e-5
    assert np.isfinite(fit_independent(np.zeros((3, 2)), np.eye(2, dtype=bool)[[0, 1, 0]]).intercept)
    logits, background = np.array([[2.0, 0.0]]), np.array([[1.0, 0.0]])
    assert log_odds(logits, background) == pytest.approx(logits - np.log(np.e + 1))


def test_thresholds_have_the_best_f1_over_all_pairs():
    clips = drawn(25, labels=2, seed=4)
    scores = IndependentProbabilities().probabilities(clips.logits, clips.background)
    cuts = [np.append(column, 2.0) for column in scores.T]
    best = max(_f1(scores >= np.array(pair), clips.true) for pair in product(*cuts))
    assert _f1(scores >= fit_thresholds(scores, clips.true), clips.true) == pytest.approx(best)
    unseen = fit_thresholds(scores, np.eye(2, dtype=bool)[np.zeros(25, int)])
    assert unseen[0] == unseen[1] < scores[:, 0].min(), "true of every clip; the other label has no clip"
    tied = fit_thresholds(np.full((25, 2), 0.7), clips.true)
    assert all(threshold == pytest.approx(0.35) or threshold == pytest.approx(0.85) for threshold in tied)


def _f1(said, true):
    return 2 * (said & true).sum() / (said.sum() + true.sum())


def test_a_group_is_in_one_part():
    groups = [f"person {number // 7}" for number in range(70)]
    one, other = drawn(70, groups=groups).split(seed=3)
    assert not set(one.groups) & set(other.groups)
    assert (len(one), len(other)) == (35, 35)
    assert len(drawn(70, groups=groups).split(share=0.8, seed=3)[0]) == 56


@pytest.mark.parametrize(
    ("clips", "asked", "said"),
    [
        (drawn(19), {}, "19 labelled clips could be read; a calibration needs 20"),
        (drawn(30), {}, "15 of them are left to check .* need 19"),
        (drawn(40, groups=["one film"] * 40), {}, "takes two"),
        (drawn(40, labels=1), {}, "one label"),
    ],
)
def test_too_few_clips_are_said(clips, asked, said):
    with pytest.raises(CalibrationError, match=said):
        fit_params(clips, **asked)
    if len(clips) == 30:
        fit_params(clips, false_rejection_rate=0.1)
