import math
from dataclasses import replace

import numpy as np
import pytest

from clipact import metrics
from clipact.evaluate.metric_values import metric_values
from clipact.report.sections import compare_results, section
from tests.report.conftest import some_retrieval, some_scores


def test_results_are_compared_where_they_are_of_the_same_samples():
    one, same, other = some_scores(), some_scores(seed=1), some_scores(samples=tuple(map(str, range(60))))
    same = some_scores(scores=same.scores)
    found = compare_results([one, same, other, some_retrieval()])
    assert [(each.one, each.other) for each in found] == [(0, 1)]
    ours, theirs = (metrics.hits(each.scores, each.truth) for each in (one, same))
    assert found[0].difference.value == pytest.approx(ours.mean() - theirs.mean())
    assert found[0].clustered
    only, other_only = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    tail = sum(math.comb(only + other_only, k) for k in range(min(only, other_only) + 1)) / 2 ** (only + other_only)
    assert found[0].mcnemar == pytest.approx(min(1.0, 2 * tail))


def test_a_difference_over_parts_is_that_of_the_figures_shown():
    parts = {"split 1": np.arange(5), "split 2": np.arange(3, 60)}
    pair = [some_scores(parts=parts), some_scores(parts=parts, scores=some_scores(seed=1).scores)]
    (found,) = compare_results(pair)
    one, other = (metric_values(each, draws=2)[0].value for each in pair)
    assert found.difference.value == pytest.approx(one - other)
    plain = np.subtract(*(metrics.hits(each.scores, each.truth).mean() for each in pair))
    assert abs(found.difference.value - plain) > 0.01
    assert (
        compare_results([pair[0], replace(pair[1], parts={"split 1": np.arange(5), "split 2": np.arange(4, 60)})]) == []
    )


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
    assert metric_values(empty) == ()
    assert section(empty).matrix == ()
