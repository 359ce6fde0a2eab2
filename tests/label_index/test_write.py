"""What changes an index: from a stream, resumed, killed, added to, removed from; and files that are not whole."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipact.cache import Cache
from clipact.errors import LabelIndexError, UsageError
from clipact.label_index import IndexEntry, IndexPlan, LabelIndex, add_entries, build_index, remove_entries
from tests.label_index.drawing import METADATA, clusters, encoder, entries

ALL = clusters(400)


@pytest.fixture
def small_segments(monkeypatch):
    monkeypatch.setattr("clipact.label_index.build._SEGMENT_BYTES", 4 * 32 * 64)


def built(path, count=300, **options):
    return build_index(path, entries(count), encoder(ALL), metadata=METADATA, **options)


def texts(index, query, k=5):
    return [entry.text for entry in index.entries(index.search(query[None], k).rows[0])]


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivf-pq"])
def test_what_is_added_is_found_and_what_is_removed_is_not(tmp_path, kind, monkeypatch):
    built(tmp_path / "i", plan=IndexPlan(kind=kind, recall=1.0))
    change = add_entries(tmp_path / "i", entries(101, start=299), encoder(ALL), model_key=METADATA.model_key)
    assert (change.added, change.repeats) == (100, 1)
    index = LabelIndex.open(tmp_path / "i")
    assert len(index) == 400
    if kind != "exact":
        assert index.manifest.faiss.rows == 300  # few are compared one by one
    for row in (3, 350):
        assert texts(index, ALL[row])[0] == f"text {row}"
    assert remove_entries(tmp_path / "i", ["id 3", "id 350"]).removed == 2
    index = LabelIndex.open(tmp_path / "i")
    assert len(index) == 398
    whole = index.search(ALL[:50], 398).rows
    assert not {3, 350} & set(whole.ravel().tolist())
    # What was removed can come again, with another text.
    add_entries(
        tmp_path / "i",
        [IndexEntry(id="id 3", text="new", metadata={"row": 3})],
        encoder(ALL),
        model_key=METADATA.model_key,
    )
    assert texts(LabelIndex.open(tmp_path / "i"), ALL[3])[0] == "new"
    # Many added at once go into FAISS's file, which is not made anew.
    monkeypatch.setattr("clipact.label_index.faiss_build.TAIL_NUMBERS", 0)
    monkeypatch.setattr("clipact.label_index.faiss.train", None)
    more = [IndexEntry(id=f"more {i}", text=f"more {i}", metadata={"row": i}) for i in range(20)]
    add_entries(tmp_path / "i", more, encoder(-ALL), model_key=METADATA.model_key)
    index = LabelIndex.open(tmp_path / "i")
    assert texts(index, -ALL[4])[0] == "more 4"
    assert kind == "exact" or index.manifest.faiss.rows == len(index.rows)


def test_many_small_additions_are_few_segments_and_the_same_rows(tmp_path):
    built(tmp_path / "i", 5)
    for start in range(5, 60):
        add_entries(tmp_path / "i", entries(1, start=start), encoder(ALL), model_key=METADATA.model_key)
    index = LabelIndex.open(tmp_path / "i")
    assert len(index.manifest.segments) <= 7
    assert [index.entry(row).text for row in range(60)] == [f"text {row}" for row in range(60)]
    np.testing.assert_array_equal(index.rows.vectors(np.arange(60)), ALL[:60])
    assert len(list((tmp_path / "i").iterdir())) == 4 * len(index.manifest.segments) + 2  # and index.json, .lock


def test_repeats_count_once_and_an_id_has_one_text(tmp_path, small_segments):
    stream = [*entries(200), *entries(10), *entries(100, start=195)]
    index = build_index(tmp_path / "i", stream, encoder(ALL), metadata=METADATA)
    assert (len(index), index.manifest.progress.repeats) == (295, 15)
    with pytest.raises(LabelIndexError, match="'text 0' and for 'other'"):
        build_index(tmp_path / "j", [*stream, IndexEntry(id="id 0", text="other")], encoder(ALL), metadata=METADATA)


class StoppedError(Exception):
    pass


def stopping(count):
    for number, entry in enumerate(entries(300)):
        if number == count:
            raise StoppedError
        yield entry


def test_a_stopped_build_is_gone_on_with_and_encodes_nothing_twice(tmp_path, small_segments):
    with pytest.raises(StoppedError):
        build_index(tmp_path / "i", stopping(200), encoder(ALL), metadata=METADATA)
    with pytest.raises(LabelIndexError, match="holds no label index"):
        LabelIndex.open(tmp_path / "i")
    with pytest.raises(LabelIndexError, match="does not begin with them"):
        build_index(tmp_path / "i", entries(300, start=1), encoder(ALL), metadata=METADATA, resume=True)
    with pytest.raises(LabelIndexError, match="does not begin with them"):
        build_index(tmp_path / "i", entries(100), encoder(ALL), metadata=METADATA, resume=True)
    with pytest.raises(LabelIndexError, match="other vectors"):
        build_index(
            tmp_path / "i", entries(300), encoder(ALL), metadata=replace(METADATA, model_key="x" * 64), resume=True
        )
    calls: list[int] = []
    resumed = build_index(tmp_path / "i", entries(300), encoder(ALL, calls=calls), metadata=METADATA, resume=True)
    assert sum(calls) == 300 - 3 * 64
    plain = built(tmp_path / "j")
    assert len(resumed) == len(plain) == 300
    np.testing.assert_array_equal(resumed.rows.vectors(np.arange(300)), plain.rows.vectors(np.arange(300)))
    assert resumed.manifest.progress == plain.manifest.progress
    assert len(list((tmp_path / "i").iterdir())) == len(list((tmp_path / "j").iterdir()))


def test_faiss_is_gone_on_with_from_where_it_was_kept(tmp_path, small_segments, monkeypatch):
    monkeypatch.setattr("clipact.label_index.faiss_build._SAVE_SECONDS", 0)
    plan = IndexPlan(kind="hnsw")

    def stop_in_the_middle(items, total, description):
        for number, item in enumerate(items):
            if description == "hnsw" and number == 3:
                raise StoppedError
            yield item

    with pytest.raises(StoppedError):
        built(tmp_path / "i", plan=plan, progress=stop_in_the_middle)
    monkeypatch.setattr("clipact.label_index.faiss.train", None)
    index = built(tmp_path / "i", plan=plan, resume=True)
    assert index.manifest.faiss.rows == 300
    assert (index.search(ALL[:300], 1).rows[:, 0] == np.arange(300)).mean() > 0.99


def test_a_build_over_an_index_leaves_it_until_it_is_done(tmp_path, small_segments):
    built(tmp_path / "i", 100)
    with pytest.raises(StoppedError):
        build_index(tmp_path / "i", stopping(200), encoder(-ALL), metadata=METADATA)
    index = LabelIndex.open(tmp_path / "i")
    assert (len(index), texts(index, ALL[5])[0]) == (100, "text 5")
    add_entries(
        tmp_path / "i", entries(1, start=390), encoder(ALL), model_key=METADATA.model_key
    )  # and can be added to meanwhile
    build_index(tmp_path / "i", entries(300), encoder(-ALL), metadata=METADATA, resume=True)
    assert len(LabelIndex.open(tmp_path / "i")) == 300
    # Whoever had it open goes on with what there was.
    assert texts(index, ALL[7])[0] == "text 7"


_SLOW = """
import sys, time
from pathlib import Path
from clipact.label_index import add_entries, build_index, remove_entries
from tests.label_index.drawing import *
import clipact.label_index.build as writer
writer._SEGMENT_BYTES = 4 * 32 * 64
vectors = clusters(400)
for turn in range(10_000):
    add_entries(sys.argv[1], entries(30, start=300), encoder(vectors), model_key=METADATA.model_key)
    remove_entries(sys.argv[1], [f"id {i}" for i in range(300, 330)])
    build_index(sys.argv[1] + ".other", entries(300), encoder(vectors), metadata=METADATA)
    Path(sys.argv[1] + ".turn").write_text(str(turn))
"""


def test_kill_9_at_any_time_leaves_a_whole_index(tmp_path):
    built(tmp_path / "i")
    for turn in range(5):
        process = subprocess.Popen([sys.executable, "-c", _SLOW, str(tmp_path / "i")], cwd=Path.cwd())
        (tmp_path / "i.turn").unlink(missing_ok=True)
        while not (tmp_path / "i.turn").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.013 * turn)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        index = LabelIndex.open(tmp_path / "i")
        assert len(index) in (300, 330)
        assert texts(index, ALL[17])[0] == "text 17"
        assert len(LabelIndex.open(tmp_path / "i.other")) == 300
    gone = [f"id {i}" for i in range(300, 330)] if len(index) == 330 else ["id 0"]
    remove_entries(tmp_path / "i", gone)  # no lock is left behind
    left = {path.name for path in (tmp_path / "i").iterdir()}
    table = LabelIndex.open(tmp_path / "i").manifest
    assert left == {record.name for record in table.files} | {"index.json", ".lock"}


def test_one_writer_at_a_time(tmp_path):
    index = built(tmp_path / "i", 20)
    with index.folder.lock(), pytest.raises(LabelIndexError, match="another process"):
        remove_entries(tmp_path / "i", ["id 1"])


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
def test_a_flipped_bit_in_any_file_is_noticed(tmp_path, kind):
    built(tmp_path / "i", plan=IndexPlan(kind=kind))
    remove_entries(tmp_path / "i", ["id 9"])
    cache = Cache(tmp_path / "store")
    LabelIndex.open(tmp_path / "i", cache=cache)
    files = sorted(path for path in (tmp_path / "i").iterdir() if path.name != ".lock")
    assert len(files) == (6 if kind == "exact" else 7)
    for path in files:
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        for damaged in (bytes(flipped), whole[:-3], b""):
            path.write_bytes(damaged)
            with pytest.raises(LabelIndexError, match=r"damaged|empty|is none|format|index.json"):
                LabelIndex.open(tmp_path / "i", cache=cache)
        path.write_bytes(whole)
        LabelIndex.open(tmp_path / "i", cache=cache)
    path.unlink()
    with pytest.raises(LabelIndexError, match=r"missing|no label index"):
        LabelIndex.open(tmp_path / "i", cache=cache)


def test_a_file_that_was_found_right_is_not_read_again_until_it_is_touched(tmp_path, monkeypatch):
    built(tmp_path / "i", 20)
    cache = Cache(tmp_path / "store")
    LabelIndex.open(tmp_path / "i", cache=cache)
    read = []
    import hashlib

    plain = hashlib.file_digest
    monkeypatch.setattr("clipact.label_index.storage.hashlib.file_digest", lambda *a: read.append(a) or plain(*a))
    LabelIndex.open(tmp_path / "i", cache=cache)
    assert not read
    next((tmp_path / "i").glob("*.vectors")).touch()
    LabelIndex.open(tmp_path / "i", cache=cache)
    assert len(read) == 4


def test_a_table_that_names_files_elsewhere_is_refused(tmp_path):
    index = built(tmp_path / "i", 20)
    raw = index.folder.read_manifest()
    (tmp_path / "secret").write_bytes(b"x" * raw["segments"][0]["vectors"]["bytes"])
    raw["segments"][0]["vectors"]["name"] = "../secret"
    index.folder.commit(raw)
    with pytest.raises(LabelIndexError, match="none of an index's"):
        LabelIndex.open(tmp_path / "i")


@pytest.mark.parametrize("change", [{"format": 2}, {"unknown": 1}, {"segments": 3}])
def test_a_table_of_another_form_is_refused(tmp_path, change):
    index = built(tmp_path / "i", 20)
    index.folder.commit(index.folder.read_manifest() | change)
    with pytest.raises(LabelIndexError, match=r"index\.json"):
        LabelIndex.open(tmp_path / "i")


def test_what_cannot_be_done_is_said_and_nothing_is_lost(tmp_path):
    built(tmp_path / "i", 20)
    before = json.loads((tmp_path / "i" / "index.json").read_text())
    with pytest.raises(LabelIndexError, match="'nobody'.*nothing was removed"):
        remove_entries(tmp_path / "i", ["id 1", "nobody"])
    with pytest.raises(LabelIndexError, match="made by the model drawn"):
        add_entries(tmp_path / "i", entries(1, start=30), encoder(ALL), model_key="other")
    with pytest.raises(LabelIndexError, match="unit vectors"):
        add_entries(tmp_path / "i", entries(1, start=30), encoder(2 * ALL), model_key=METADATA.model_key)
    with pytest.raises(LabelIndexError, match="unit vectors"):
        add_entries(tmp_path / "i", entries(1, start=30), encoder(np.nan * ALL), model_key=METADATA.model_key)
    with pytest.raises(UsageError, match="nothing to index"):
        build_index(tmp_path / "j", [], encoder(ALL), metadata=METADATA)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    with pytest.raises(LabelIndexError, match="holds no index"):
        built(tmp_path / "mine")
    assert json.loads((tmp_path / "i" / "index.json").read_text()) == before
    assert len(LabelIndex.open(tmp_path / "i")) == 20


def test_half_precision_halves_the_disk_and_moves_cosines_a_little(tmp_path):
    whole = built(tmp_path / "i")
    half = build_index(tmp_path / "h", entries(300), encoder(ALL), metadata=replace(METADATA, precision="float16"))
    assert half.manifest.segments[0].vectors.bytes * 2 == whole.manifest.segments[0].vectors.bytes
    np.testing.assert_allclose(half.search(ALL[:20], 10).cosines, whole.search(ALL[:20], 10).cosines, atol=2e-3)


def test_an_index_can_be_emptied_and_says_so(tmp_path):
    built(tmp_path / "i", 3)
    remove_entries(tmp_path / "i", ["id 0", "id 1", "id 2"])
    index = LabelIndex.open(tmp_path / "i")
    assert len(index) == 0
    with pytest.raises(LabelIndexError, match="empty"):
        index.search(ALL[:1], 1)


def test_an_index_of_an_earlier_version_opens_under_the_new_names(tmp_path):
    index = built(tmp_path / "i", plan=IndexPlan(kind="hnsw"))
    old = index.folder.read_manifest()
    old["about"], old["nearest"] = old.pop("metadata"), old.pop("faiss")
    old["nearest"]["recipe"], old["nearest"]["width"] = (
        old["nearest"].pop(key) for key in ("factory", "search_effort")
    )
    index.folder.commit(old)
    with pytest.warns(UserWarning, match=r"about is now metadata.*faiss\.width is now faiss\.search_effort"):
        assert LabelIndex.open(tmp_path / "i").manifest == index.manifest
