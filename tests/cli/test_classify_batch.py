"""`clipact classify --out`: answers of many videos in a file, and going on after a stop."""

import csv
import json
import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from clipact.cache import Cache
from clipact.cli import terminal
from clipact.embed import embed_clips as engine

LABELS = ("drink", "read", "UseLaptop")
ENDINGS = (".jsonl", ".csv", ".parquet")


@pytest.fixture(autouse=True)
def cold(tmp_path_factory, monkeypatch):
    """Each test has a cache of its own; gives what makes a new one."""

    def begin():
        monkeypatch.setenv("CLIPACT_CACHE", str(tmp_path_factory.mktemp("cache")))

    begin()
    return begin


@pytest.fixture
def clips(videos, tmp_path):
    """Six videos below a folder, one of them not readable."""
    folder = tmp_path / "clips"
    shutil.copytree(videos, folder)
    (folder / "broken.mp4").write_text("no video")
    shutil.copy(folder / "a.mp4", folder / "more" / "twin.mp4")
    shutil.copy(folder / "b.mp4", folder / "z.mp4")
    return folder


@pytest.fixture
def classify(clipact, tiny):
    def run(*words):
        return clipact("classify", *words, "--labels", ",".join(LABELS), "--model", tiny)

    return run


@pytest.fixture
def interrupt(monkeypatch):
    """Makes the command stop, as by Ctrl-C, when so many rows are done."""

    def after(count):
        def track(items, *, total, what, prints=False):
            for number, item in enumerate(items):
                if number == count:
                    raise KeyboardInterrupt
                yield item

        monkeypatch.setattr(terminal, "track", track)

    return after


def read(path):
    """Video, labels, scores and error of each row, whatever the format."""
    if path.suffix == ".parquet":
        return [
            (row["video"], row["labels"], row["scores"], row["error"] or "") for row in pq.read_table(path).to_pylist()
        ]
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [
            (
                row["video"],
                [one["label"] for one in row["predictions"]],
                [one["score"] for one in row["predictions"]],
                row["error"]["message"] if row["error"] else "",
            )
            for row in rows
        ]
    rows = list(csv.DictReader(path.read_text().splitlines()))
    found = []
    for row in rows:
        best = [(row[f"label_{rank}"], row[f"score_{rank}"]) for rank in (1, 2, 3) if row.get(f"label_{rank}")]
        found.append((row["video"], [label for label, _ in best], [float(s) for _, s in best], row["error"]))
    return found


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_of_answers_says_what_the_screen_says(classify, clips, tmp_path, ending, workers):
    shown = classify(clips, "--json")
    assert shown.code == 1
    expected = [json.loads(line) for line in shown.out.splitlines()]
    out = tmp_path / f"answers{ending}"
    done = classify(clips, "--out", out, "--workers", workers, "--threads", 1)
    assert done.code == 1
    assert done.out == f"{out}\n"
    assert "broken.mp4" in done.err
    assert "1 of 6 videos could not be read" in done.err
    found = read(out)
    assert [row[0] for row in found] == [row["video"] for row in expected]
    assert len(found) == 6
    for (_, labels, scores, error), row in zip(found, expected, strict=True):
        assert labels == [one["label"] for one in row["predictions"]]
        np.testing.assert_allclose(scores, [one["score"] for one in row["predictions"]], rtol=0, atol=1e-5)
        assert bool(error) == (row["error"] is not None)
        if error:
            assert error == row["error"]["message"]
    assert not (tmp_path / f"answers{ending}.journal").exists()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_stopped_and_resumed_it_is_the_same_file(classify, clips, tmp_path, cold, interrupt, ending, stop):
    whole, out = tmp_path / f"whole{ending}", tmp_path / f"answers{ending}"
    assert classify(clips, "--out", whole).code == 1
    cold()
    interrupt(stop)
    stopped = classify(clips, "--out", out)
    assert (stopped.code, stopped.out) == (130, "")
    assert not out.exists()
    assert (tmp_path / f"answers{ending}.journal").exists()
    cold()
    interrupt(99)
    assert classify(clips, "--out", out, "--resume", "--workers", 2).code == 1
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(one.name for one in tmp_path.iterdir()) == [f"answers{ending}", "clips", f"whole{ending}"]


def test_what_the_journal_holds_is_not_decoded_again(classify, clips, tmp_path, cold, interrupt, monkeypatch):
    interrupt(4)
    assert classify(clips, "--out", tmp_path / "a.csv").code == 130
    interrupt(99)
    cold()
    decoded, real = [], engine.collect_frames
    monkeypatch.setattr(engine, "collect_frames", lambda path, *a, **k: decoded.append(path) or real(path, *a, **k))
    assert classify(clips, "--out", tmp_path / "a.csv", "--resume").code == 1
    assert len(decoded) <= 6 - 4


def test_other_labels_may_go_on_from_a_journal_and_other_clips_may_not(classify, clips, tmp_path, interrupt, clipact):
    """The journal has embeddings: they do not depend on labels."""
    interrupt(2)
    assert classify(clips, "--out", tmp_path / "a.jsonl").code == 130
    interrupt(99)
    refused = classify(clips, "--out", tmp_path / "a.jsonl", "--resume", "--clips", 2)
    assert refused.code == 1
    assert "another run" in refused.err
    assert classify(clips, "--out", tmp_path / "a.jsonl", "--resume").code == 1
    assert len(read(tmp_path / "a.jsonl")) == 6


def test_a_list_of_videos(classify, clips, tmp_path):
    names = [str(clips / name) for name in ("z.mp4", "a.mp4", "gone.mp4")]
    (tmp_path / "list.txt").write_text("# three\n" + "\n".join(names) + "\n")
    assert classify(f"@{tmp_path / 'list.txt'}", "--out", tmp_path / "a.csv").code == 1
    assert [row[0] for row in read(tmp_path / "a.csv")] == names
    assert [bool(row[3]) for row in read(tmp_path / "a.csv")] == [False, False, True]


def test_all_readable_is_exit_code_0(classify, clips, tmp_path):
    done = classify(clips / "a.mp4", clips / "z.mp4", "--out", tmp_path / "a.parquet", "--top", 1)
    assert done.code == 0, done.err
    assert [len(row[1]) for row in read(tmp_path / "a.parquet")] == [1, 1]


def test_the_same_file_twice_is_encoded_once(classify, clips, tmp_path):
    assert classify(clips / "a.mp4", clips / "more" / "twin.mp4", "--out", tmp_path / "a.jsonl").code == 0
    one, other = read(tmp_path / "a.jsonl")
    assert one[1:] == other[1:]
    assert {kind.kind: kind.entries for kind in Cache().info()}["frames"] == 1


def test_wrong_usage_is_said_before_a_model_is_loaded(classify, clips, tmp_path, monkeypatch):
    from clipact.models import zoo

    monkeypatch.setattr(zoo, "load_model", lambda *a, **k: pytest.fail("the model was loaded"))
    done = classify(clips, "--resume")
    assert done.code == 2
    assert "--out" in done.err
    done = classify(clips, "--out", tmp_path / "answers.txt")
    assert done.code == 2
    assert ".jsonl" in done.err
    done = classify(clips, "--out", tmp_path / "nowhere" / "answers.csv")
    assert done.code == 2
    assert "nowhere" in done.err
    assert [one.name for one in tmp_path.iterdir()] == ["clips"]


def test_twenty_errors_are_said_and_all_are_in_the_file(classify, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(25):
        (folder / f"{number:02}.mp4").write_text("no video")
    done = classify(folder, "--out", tmp_path / "a.csv")
    assert done.code == 1
    assert done.err.count(".mp4: ") == 20
    assert "25 of 25" in done.err
    assert all(row[3] for row in read(tmp_path / "a.csv"))


def test_a_name_that_is_not_utf8(classify, clips, tmp_path):
    try:
        shutil.copy(clips / "a.mp4", clips / os.fsdecode(b"caf\xe9.mp4"))
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    for ending in ENDINGS:
        done = classify(clips / os.fsdecode(b"caf\xe9.mp4"), clips / "a.mp4", "--out", tmp_path / f"a{ending}")
        assert done.code == 0, done.err
        assert len(read(tmp_path / f"a{ending}")) == 2
