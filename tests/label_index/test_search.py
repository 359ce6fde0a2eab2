from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from clipact.errors import LabelIndexError, UsageError
from clipact.label_index import IndexEntry, IndexPlan, LabelIndex, build_index
from clipact.label_index.faiss_build import EXACT_NUMBERS, choose_index_type
from tests.label_index.drawing import METADATA, clusters, encoder, entries


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivf-pq"])
def test_the_nearest_are_those_of_a_matrix_product(tmp_path, kind):
    vectors, queries = clusters(3000), clusters(20, seed=1)
    index = build_index(
        tmp_path / "i", entries(3000), encoder(vectors), metadata=METADATA, plan=IndexPlan(kind=kind, recall=0.99)
    )
    assert index.kind == kind
    found = LabelIndex.open(tmp_path / "i").search(queries, 10, search_effort=4096)
    cosines = queries @ vectors.T
    expected = np.argsort(-cosines, axis=1, kind="stable")[:, :10]
    assert (found.rows == expected).mean() > 0.99
    np.testing.assert_allclose(found.cosines, np.take_along_axis(cosines, found.rows, 1), atol=1e-5)
    assert index.entry(7) == IndexEntry(id="id 7", text="text 7", metadata={"row": 7})


@pytest.fixture(params=["torch", "NumPy"])
def library(request, monkeypatch):
    """What multiplies: torch where it is loaded, else NumPy."""
    if request.param == "NumPy":
        monkeypatch.setattr("clipact.label_index.exact.sys", SimpleNamespace(modules={}))
    return request.param


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_an_exact_search_is_a_matrix_product_with_and_without_torch(tmp_path, monkeypatch, library, precision):
    monkeypatch.setattr("clipact.label_index.rows.BLOCK_BYTES", 4 * 32 * 100)
    vectors, queries = clusters(730), clusters(20, seed=1)
    metadata = replace(METADATA, precision=precision)
    index = build_index(tmp_path / "i", entries(730), encoder(vectors), metadata=metadata)
    cosines = queries @ vectors.astype(precision).astype(np.float32).T
    found = index.search_exactly(queries, 10, scale=9.0)
    np.testing.assert_allclose(found.nearest.cosines, -np.sort(-cosines, axis=1)[:, :10], atol=1e-6)
    np.testing.assert_allclose(found.log_total, np.log(np.exp(9.0 * cosines.astype(np.float64)).sum(1)), atol=1e-5)
    assert index.search(queries, 10).rows.tolist() == found.nearest.rows.tolist()


def test_equal_vectors_come_in_the_order_of_their_rows_across_blocks_and_segments(tmp_path, monkeypatch, library):
    monkeypatch.setattr("clipact.label_index.build._SEGMENT_BYTES", 4 * 32 * 7)
    monkeypatch.setattr("clipact.label_index.rows.BLOCK_BYTES", 4 * 32 * 3)
    one = np.repeat(clusters(1), 20, axis=0)
    index = build_index(tmp_path / "i", entries(20), encoder(one), metadata=METADATA)
    assert len(index.manifest.segments) == 3
    assert index.search(one[:1], 12).rows.tolist() == [list(range(12))]
    assert index.search(one[:1], 25).rows[0].tolist() == [*range(20), *[-1] * 5]


def test_shares_are_a_softmax_over_all_rows(tmp_path):
    vectors, queries = clusters(500), clusters(4, seed=1)
    index = build_index(tmp_path / "i", entries(500), encoder(vectors), metadata=METADATA)
    shares = index.shares(queries, scale=20.0, k=7)
    logits = 20.0 * (queries @ vectors.T).astype(np.float64)
    whole = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    top = np.sort(whole, axis=1)[:, ::-1][:, :7]
    np.testing.assert_allclose(shares.probabilities, top, rtol=1e-4)
    np.testing.assert_allclose(shares.outside, 1 - top.sum(1), rtol=1e-4)
    assert not shares.error.any()


def test_a_large_scale_overflows_nothing(tmp_path):
    index = build_index(tmp_path / "i", entries(50), encoder(clusters(50)), metadata=METADATA)
    shares = index.shares(-clusters(2, seed=3), scale=5000.0, k=3)
    np.testing.assert_allclose(shares.probabilities.sum(1) + shares.outside, 1)


def test_what_lies_outside_is_estimated_within_its_error(tmp_path):
    vectors, queries = clusters(6000), clusters(200, seed=1)
    index = build_index(tmp_path / "i", entries(6000), encoder(vectors), metadata=METADATA, plan=IndexPlan(kind="hnsw"))
    shares = index.shares(queries, scale=12.0, k=60)
    logits = 12.0 * (queries @ vectors.T).astype(np.float64)
    whole = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    true = 1 - np.array([line[rows].sum() for line, rows in zip(whole, shares.nearest.rows, strict=True)])
    off = (shares.outside - true) / shares.error
    assert 0.2 < true.mean() < 0.9  # there is something to estimate
    assert np.abs(shares.outside - true).mean() < shares.error.mean() < 0.05
    assert 0.85 < (np.abs(off) < 2).mean() <= 1  # one sample serves all queries: their errors go together


def test_what_cannot_be_asked(tmp_path):
    index = build_index(tmp_path / "i", entries(5), encoder(clusters(5)), metadata=METADATA)
    with pytest.raises(UsageError, match="32"):
        index.search(np.ones((1, 16), np.float32), 1)
    with pytest.raises(UsageError, match="at least 1"):
        index.search(clusters(1), 0)
    with pytest.raises(LabelIndexError, match="clipact index build"):
        LabelIndex.open(tmp_path / "nothing")


def test_the_rule():
    small = EXACT_NUMBERS // 512
    assert choose_index_type(small, 512, IndexPlan()).kind == "exact"
    assert choose_index_type(small + 1, 512, IndexPlan(memory_bytes=10**10)).kind == "hnsw"
    big = choose_index_type(10_000_000, 512, IndexPlan(memory_bytes=10**10))
    assert (big.kind, big.factory) == ("ivf-pq", "IVF4096,PQ64")
    assert choose_index_type(10, 512, IndexPlan(kind="hnsw")).kind == "hnsw"
    assert choose_index_type(10**6, 30, IndexPlan(kind="ivf-pq")).factory.endswith("PQ3")
