import numpy as np
import pytest

from clipact import metrics
from clipact.report.figures import compare, figures
from clipact.report.sections import section
from tests.report.conftest import some_retrieval, some_scores


def test_figures_are_those_of_the_metrics():
    result = some_scores()
    found = {figure.name: figure.interval for figure in figures(result)}
    right = metrics.hits(result.scores, result.truth)
    assert found["top-1"].value == pytest.approx(right.mean())
    assert found["top-5"].value == pytest.approx(metrics.top_k(result.scores, result.truth, k=5))
    assert found["mean per class"].value == pytest.approx(metrics.mean_per_class(right, result.truth))
    shares = [interval for name, interval in found.items() if name != "calibration error"]
    assert all(interval.low <= interval.value <= interval.high for interval in shares)
    alone = {figure.name: figure.interval for figure in figures(some_scores(groups=None))}
    assert alone["top-1"].value == found["top-1"].value
    assert (alone["top-1"].low, alone["top-1"].high) != (found["top-1"].low, found["top-1"].high)


def test_two_labels_have_a_curve_and_several_truths_an_average_precision():
    two = {figure.name for figure in figures(some_scores(labels=2, truth=np.arange(60) % 2))}
    assert "AUROC of label 1" in two
    assert "top-5" not in two
    result = some_scores(multi_truth=np.random.default_rng(0).random((60, 6)) < 0.4)
    (only,) = figures(result)
    assert only.name == "mean AP"
    assert only.interval.value == pytest.approx(metrics.mean_ap(result.scores, result.multi_truth))


def test_retrieval_has_figures_both_ways():
    result = some_retrieval()
    found = {figure.name: figure.interval.value for figure in figures(result)}
    expected = metrics.recall(result.similarity, result.text_of, np.arange(12), ks=[1])[1]
    assert found["text to visual, recall@1"] == pytest.approx(expected)
    assert found["visual to text, median rank"] >= 1
    assert len(found) == 8


def test_results_are_compared_where_they_are_of_the_same_samples():
    one, same, other = some_scores(), some_scores(seed=1), some_scores(samples=tuple(map(str, range(60))))
    same = some_scores(scores=same.scores)
    found = compare([one, same, other, some_retrieval()])
    assert [(each.one, each.other) for each in found] == [(0, 1)]
    ours, theirs = (metrics.hits(each.scores, each.truth) for each in (one, same))
    assert found[0].difference.value == pytest.approx(ours.mean() - theirs.mean())
    assert found[0].clustered


def test_a_section_tells_every_confusion_and_puts_the_worst_label_first():
    result = some_scores()
    told = section(result)
    assert np.array(told.matrix).sum() == 60
    assert told.pairs[0].count == max(pair.count for pair in told.pairs)
    assert all(set(pair.samples) <= set(result.samples) for pair in told.pairs)
    values = [bar.value for bar in told.classes if bar.count]
    assert values == sorted(values)
    assert told.classes[-1].label == "label 5"
    assert sum(bin.count for bin in told.bins) == 60


def test_nothing_read_is_a_section_all_the_same():
    empty = some_scores(samples=(), truth=np.zeros(0, np.int64), scores=np.zeros((0, 6), np.float32), groups=None)
    assert figures(empty) == ()
    assert section(empty).matrix == ()
