from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from clipact.evaluate.metric_values import metric_values
from clipact.evaluate.results import ClassificationResult, RetrievalResult
from clipact.metrics import mean_ap


def labelled(count=60, labels=7, **more):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, labels, count)
    scores = rng.normal(size=(count, labels)).astype(np.float32)
    scores[np.arange(count), truth] += 1.0
    return ClassificationResult(
        samples=tuple(map(str, range(count))),
        labels=tuple(f"l{i}" for i in range(labels)),
        truth=truth,
        scores=scores,
        **more,
    )


def named(result):
    return {one.name: one for one in metric_values(result, draws=200)}


def test_figures_of_labels_are_those_written_out():
    result = labelled()
    right = result.scores.argmax(1) == result.truth
    found = named(result)
    assert found["top-1"].value == pytest.approx(right.mean())
    ranks = (result.scores > result.scores[np.arange(60), result.truth][:, None]).sum(1)
    assert found["top-5"].value == pytest.approx((ranks < 5).mean())
    expected = np.mean([right[result.truth == label].mean() for label in range(7)])
    assert found["mean per class"].value == pytest.approx(expected)
    assert found["top-1"].headline
    assert found["top-1"].low < found["top-1"].value < found["top-1"].high
    assert found["top-1"].count == 60


def test_the_protocols_own_figure_comes_first():
    assert metric_values(labelled(run={"metric": "mean_per_class"}), draws=10)[0].name == "mean per class"
    assert metric_values(labelled(run={"metric": "mean_ap"}), draws=10)[0].name == "mAP"


def test_map_is_of_the_first_label_or_of_all_that_are_true():
    result = labelled(run={"metric": "mean_ap"})
    one = np.eye(7, dtype=bool)[result.truth]
    assert named(result)["mAP"].value == pytest.approx(mean_ap(result.scores, one))
    several = one | (np.random.default_rng(1).random(one.shape) < 0.3)
    found = named(replace(result, multi_truth=several))
    assert found["mAP"].value == pytest.approx(mean_ap(result.scores, several))
    assert found["mAP"].value != pytest.approx(mean_ap(result.scores, one))
    assert "calibration error" not in found


def test_five_labels_have_no_top_5():
    assert "top-5" not in named(labelled(labels=5))


def test_groups_that_are_copies_widen_the_interval():
    alone = labelled(count=40)
    copied = ClassificationResult(
        samples=tuple(map(str, range(160))),
        labels=alone.labels,
        truth=np.tile(alone.truth, 4),
        scores=np.tile(alone.scores, (4, 1)),
        groups=alone.samples * 4,
    )
    one, four = named(alone)["top-1"], named(copied)["top-1"]
    assert four.value == pytest.approx(one.value)
    assert four.high - four.low == pytest.approx(one.high - one.low, rel=0.3)


def test_over_parts_the_figure_is_the_mean_of_theirs_with_its_spread():
    parts = {"split 1": np.arange(30), "split 2": np.arange(20, 60)}
    result = labelled(parts=parts)
    right = result.scores.argmax(1) == result.truth
    each = [right[rows].mean() for rows in parts.values()]
    found = named(result)
    assert found["top-1"].value == pytest.approx(np.mean(each))
    assert found["top-1"].spread == pytest.approx(np.std(each))
    assert found["split 2 top-1"].value == pytest.approx(each[1])
    assert found["split 2 top-1"].count == 40


def test_figures_of_retrieval_are_those_written_out():
    rng = np.random.default_rng(0)
    visual = rng.normal(size=(30, 8)).astype(np.float32)
    text_of = np.repeat(np.arange(30), 2)
    text = (visual[text_of] + rng.normal(size=(60, 8))).astype(np.float32)
    result = RetrievalResult(
        samples=tuple(map(str, range(30))), texts=tuple(map(str, range(60))), text_of=text_of, visual=visual, text=text
    )
    order = np.argsort(-(text @ visual.T), axis=1)
    ranks = np.array([list(line).index(own) for line, own in zip(order, text_of, strict=True)])
    found = named(result)
    assert found["text to visual recall@1"].value == pytest.approx((ranks < 1).mean())
    assert found["text to visual recall@5"].value == pytest.approx((ranks < 5).mean())
    assert found["text to visual median rank"].value == np.median(ranks) + 1
    back = np.argsort(-(visual @ text.T), axis=1)
    firsts = np.array([[text_of[i] for i in line].index(row) for row, line in enumerate(back)])
    assert found["visual to text recall@1"].value == pytest.approx((firsts < 1).mean())
    assert found["visual to text recall@1"].headline


def test_two_labels_have_a_curve_and_every_result_a_calibration():
    found = named(labelled(labels=2))
    result = labelled(labels=2)
    ahead = result.scores[:, 1] - result.scores[:, 0]
    assert found["AUROC of l1"].value == pytest.approx(roc_auc_score(result.truth == 1, ahead))
    assert 0 <= found["calibration error"].value <= 1
    assert not any("AUROC" in name for name in named(labelled()))


def test_nothing_read_is_no_figure():
    assert metric_values(labelled(count=0)) == ()
