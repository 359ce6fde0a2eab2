"""A prediction beside plain Python: its order, its ties, its memory; agreement beside the formula in torch."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from clipact.classify.prediction import Prediction, Scored, Trust, agreement_of, best_first
from clipact.errors import UsageError


def predict(scores, **facts):
    labels = tuple(f"label {i}" for i in range(len(scores)))
    return Prediction(labels=labels, scores=np.array(scores, np.float32), model="m", prompts="action", **facts)


@pytest.mark.parametrize("kind", ["distinct", "ties", "all equal", "signed zeros"])
@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_the_best_are_those_of_a_full_stable_sort(kind, n):
    generator = np.random.default_rng(n)
    scores = {
        "distinct": generator.permutation(n) / n,
        "ties": generator.integers(0, 3, n) / 3,
        "all equal": np.full(n, 0.25),
        "signed zeros": np.where(generator.random(n) < 0.5, 0.0, -0.0),
    }[kind].astype(np.float32)
    order = sorted(range(n), key=lambda i: -float(scores[i]))  # Python's sort is stable
    prediction = predict(scores)
    assert prediction.ranked == tuple(Scored(f"label {i}", float(scores[i])) for i in order)
    assert prediction.ranked[0] == Scored(prediction.label, prediction.score)
    for k in (-1, 0, 1, 2, 3, n - 1, n, n + 1):
        assert best_first(scores, k).tolist() == order[: max(k, 0)]
        assert prediction.top(k) == prediction.ranked[: max(k, 0)]


def test_it_prints_five_and_counts_the_others():
    assert str(predict([0.1, 0.4, 0.1, 0.1, 0.1, 0.1, 0.1], video="a.mp4")).splitlines() == [
        "a.mp4", "  label 1   40.0%", "  label 0   10.0%", "  label 2   10.0%", "  label 3   10.0%",
        "  label 4   10.0%", "  … and 2 more",
    ]  # fmt: skip
    trust = Trust(
        none_of_these=True, in_set_score=0.0, threshold=1.0, score="energy", false_rejection_rate=0.1, label_set=(),
        coverage=0.9,
    )  # fmt: skip
    assert str(predict([0.5, 0.5], trust=trust)) == (
        "frames\n  none of these\n  label 0   50.0%\n  label 1   50.0%"
    )  # fmt: skip


def test_equal_ones_have_the_same_scores_and_facts():
    one, same = predict([0.7, 0.3], notes=("short",)), predict([0.7, 0.3], notes=("short",))
    assert one == same
    assert hash(one) == hash(same)
    assert one != predict([0.7, 0.3])
    assert one != predict([0.3, 0.7], notes=("short",))
    assert one != replace(one, labels=("label 0", "another"))
    assert one != "label 0"


@pytest.mark.parametrize("scores", [[], [0.5], [0.2, 0.2, 0.6]])
def test_each_label_has_one_score(scores):
    with pytest.raises(UsageError, match="one score a label"):
        Prediction(labels=("a", "b"), scores=np.array(scores, np.float32), model="m", prompts="")
    with pytest.raises(UsageError, match="at least one"):
        Prediction(labels=(), scores=np.zeros(0, np.float32), model="m", prompts="")


def test_answers_among_many_labels_share_them():
    """0.8 MB an answer, of four bytes a label; as a tuple of `Scored` it was 24 MB."""
    labels, scores = tuple(map(str, range(200_000))), np.random.default_rng(0).random(200_000, dtype=np.float32)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [Prediction(labels=labels, scores=scores.copy(), model="m", prompts="") for _ in range(3)]
        assert [len(one.top(5)) for one in kept] == [5, 5, 5]
        assert (tracemalloc.get_traced_memory()[0] - before) / 3 < 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("views", "spread"), [(2, 1.0), (5, 30.0), (3, 1000.0)])
def test_agreement_is_the_mutual_information_of_label_and_view(views, spread):
    logits = torch.randn(views, 7, generator=torch.Generator().manual_seed(views)) * spread
    shares = logits.double().softmax(1)
    of_mean = torch.special.entr(shares.mean(0)).sum()
    expected = (of_mean - torch.special.entr(shares).sum(1).mean()) / np.log(2)
    found = agreement_of(logits.numpy(), "abcdefg", answer="a")
    assert found.difference_bits == pytest.approx(float(expected), abs=1e-9)
    assert found.views == tuple("abcdefg"[i] for i in logits.argmax(1).tolist())
    assert found.agreeing == found.views.count("a")


def test_views_that_say_the_same_agree_and_others_do_not():
    agreed = agreement_of(np.array([[3.0, 1.0, 0.0]] * 4), "abc", answer="a")
    assert (agreed.views, agreed.agreeing) == (("a",) * 4, 4)
    assert agreed.difference_bits == pytest.approx(0, abs=1e-12)
    sure = agreement_of(np.array([[99.0, 0.0, 0.0], [0.0, 99.0, 0.0]]), "abc", answer="b")
    assert (sure.views, sure.agreeing) == (("a", "b"), 1)
    assert sure.difference_bits == pytest.approx(1)
    unsure = agreement_of(np.array([[0.1, 0.0, 0.0], [0.0, 0.1, 0.0]]), "abc", answer="b")
    assert 0 < unsure.difference_bits < 0.01
    assert agreement_of(np.zeros((1, 3)), "abc", answer="a") is None
