"""`clipact embed`: a Parquet file of embeddings from folders, lists and tables, and going on after a stop."""

import hashlib
import itertools
import os
import shutil

import numpy as np
import pytest

from clipact.cache import Cache
from clipact.cli import terminal
from clipact.embed.clip_source import ClipSource
from clipact.embed.embed import embed_videos
from clipact.embed.embed_clips import EmbedRequest, embed_clips
from clipact.embed.feature_file import FeatureFile
from clipact.embed.options import EmbedOptions
from clipact.models.zoo import load_model


@pytest.fixture(scope="module")
def model(tiny):
    return load_model(str(tiny), device="cpu")


@pytest.fixture
def cold(tmp_path, monkeypatch):
    """Gives the command a new cache each time it is called."""
    numbers = itertools.count()

    def begin():
        monkeypatch.setenv("CLIPACT_CACHE", str(tmp_path / "caches" / str(next(numbers))))

    begin()
    return begin


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

    yield after
    monkeypatch.undo()


def read(path):
    with FeatureFile(path) as file:
        return file.metadata, list(file)


@pytest.fixture
def table(videos, tmp_path):
    """A table of eight rows: two videos, parts of them, one that is not there."""
    lines = ["path,label,start_seconds,end_seconds", "a.mp4,wave,,", "b.mp4,wave,,", "gone.mp4,wave,,"]
    lines += [f"a.mp4,wave,{start},{start + 0.7}" for start in (0.0, 0.3, 0.6, 0.9, 1.2)]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "table.csv"


def test_a_folder_becomes_a_row_a_video(clipact, tiny, model, videos, tmp_path):
    done = clipact("embed", videos, "--out", tmp_path / "f.parquet", "--model", tiny)
    assert done.code == 0, done.err
    assert done.out == f"{tmp_path / 'f.parquet'}\n"
    metadata, rows = read(tmp_path / "f.parquet")
    paths = [videos / name for name in ("a.mp4", "b.mp4", "more/c.mp4")]
    assert [row.path for row in rows] == [str(path) for path in paths]
    assert [row.sha256 for row in rows] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert (metadata.model_hash, metadata.clip, metadata.dim) == (model.key, model.spec, model.dim)
    expected = embed_videos(paths, model, options=EmbedOptions())
    np.testing.assert_allclose([row.embedding for row in rows], expected, rtol=0, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.parquet"]


def test_what_is_named_several_ways(clipact, tiny, videos, tmp_path):
    (tmp_path / "list.txt").write_text(f"# two\n{videos / 'b.mp4'}\n{videos / 'more'}\n")
    words = (f"@{tmp_path / 'list.txt'}", f"{videos}/a*.mp4")
    assert clipact("embed", *words, "-o", tmp_path / "f.parquet", "-m", tiny).code == 0
    names = [os.path.relpath(row.path, videos) for row in read(tmp_path / "f.parquet")[1]]
    assert names == ["b.mp4", "more/c.mp4", "a.mp4"]


def test_a_table_with_parts_and_one_that_cannot_be_read(clipact, tiny, model, videos, table, tmp_path):
    done = clipact("embed", table, "--data", videos, "--out", tmp_path / "f.parquet", "--model", tiny)
    assert done.code == 1
    assert done.out == f"{tmp_path / 'f.parquet'}\n"
    assert "gone.mp4" in done.err
    assert "1 of 8 videos could not be read" in done.err
    _, rows = read(tmp_path / "f.parquet")
    assert [row.path for row in rows] == ["a.mp4", "b.mp4", "gone.mp4", *["a.mp4"] * 5]
    assert [row.start_seconds for row in rows] == [None, None, None, 0.0, 0.3, 0.6, 0.9, 1.2]
    assert rows[2].embedding is None
    assert "no such file" in rows[2].error
    sources = [
        ClipSource(
            source=videos / row.path, name=row.path, start_seconds=row.start_seconds, end_seconds=row.end_seconds
        )
        for row in rows
        if row.error is None
    ]
    expected = embed_videos(sources, model, options=EmbedOptions())
    found = [row.embedding for row in rows if row.error is None]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_tables_own_folder_is_where_its_paths_start(clipact, tiny, videos, tmp_path):
    shutil.copytree(videos, tmp_path / "data")
    (tmp_path / "data" / "t.csv").write_text("path\na.mp4\nmore/c.mp4\n")
    done = clipact("embed", tmp_path / "data" / "t.csv", "-o", tmp_path / "f.parquet", "-m", tiny)
    assert done.code == 0, done.err
    assert [row.path for row in read(tmp_path / "f.parquet")[1]] == ["a.mp4", "more/c.mp4"]


def test_frames_gives_a_row_a_frame(clipact, tiny, model, videos, tmp_path):
    words = ("embed", videos / "a.mp4", "--frames", "--set", "frames=6", "--clips", 2, "-m", tiny)
    assert clipact(*words, "-o", tmp_path / "f.parquet").code == 0
    metadata, (row,) = read(tmp_path / "f.parquet")
    assert (metadata.per_frame, metadata.clip.frames, metadata.clips) == (True, 6, 2)
    encoder = model.clip_encoder(model.spec.with_frames(6), clips=2)
    source = ClipSource(source=videos / "a.mp4", name="a")
    (found,) = embed_clips([source], EmbedRequest(encoder=encoder, features=True))
    assert row.frames.tolist() == [stamp.index for clip in found.stamps for stamp in clip]
    np.testing.assert_allclose(row.embedding, np.concatenate(found.features), rtol=0, atol=1e-5)


def test_clips_are_prepared_otherwise_by_set(clipact, tiny, videos, tmp_path):
    words = ("embed", videos / "a.mp4", "-o", tmp_path / "f.parquet", "-m", tiny)
    assert clipact(*words, "--set", "size=[24,24]", "--set", "sampling=uniform").code == 0
    metadata, _ = read(tmp_path / "f.parquet")
    assert (metadata.clip.size, metadata.clip.sampling) == ((24, 24), "uniform")
    assert clipact(*words, "--set", "size=0").code == 2
    assert clipact(*words, "--set", "colour=red").code == 2


@pytest.mark.parametrize("stop", [1, 4, 7])
@pytest.mark.parametrize("extra", [(), ("--frames",)])
def test_stopped_and_resumed_it_is_the_same_file(clipact, tiny, videos, table, tmp_path, cold, interrupt, stop, extra):
    words = ("embed", table, "--data", videos, "--model", tiny, *extra)
    assert clipact(*words, "--out", tmp_path / "whole.parquet").code == 1  # gone.mp4
    cold()
    interrupt(stop)
    stopped = clipact(*words, "--out", tmp_path / "f.parquet")
    assert (stopped.code, stopped.out) == (130, "")
    assert not (tmp_path / "f.parquet").exists()
    assert (tmp_path / "f.parquet.journal").exists()
    interrupt(99)
    cold()
    resumed = clipact(*words, "--out", tmp_path / "f.parquet", "--resume", "--workers", 3)
    assert resumed.code == 1
    assert "1 of 8 videos could not be read" in resumed.err
    assert (tmp_path / "f.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not (tmp_path / "f.parquet.journal").exists()
    assert not list(tmp_path.glob(".*"))


def test_resume_takes_no_journal_of_another_table(clipact, tiny, videos, table, tmp_path, interrupt):
    words = ("embed", table, "--data", videos, "--model", tiny, "--out", tmp_path / "f.parquet")
    interrupt(3)
    assert clipact(*words).code == 130
    interrupt(99)
    before = table.read_text()
    table.write_text(before.replace("b.mp4", "more/c.mp4"))
    done = clipact(*words, "--resume")
    assert done.code == 1
    assert "another run" in done.err
    table.write_text(before)
    assert clipact(*words, "--resume").code == 1
    assert len(read(tmp_path / "f.parquet")[1]) == 8


def test_without_a_journal_resume_begins(clipact, tiny, videos, tmp_path):
    assert clipact("embed", videos / "a.mp4", "-o", tmp_path / "f.parquet", "-m", tiny, "--resume").code == 0
    assert len(read(tmp_path / "f.parquet")[1]) == 1


def test_nothing_is_decoded_twice(clipact, tiny, videos, tmp_path, cold, monkeypatch):
    words = ("embed", videos, "-m", tiny, "-o")
    assert clipact(*words, tmp_path / "one.parquet").code == 0
    from clipact.embed import embed_clips as engine

    monkeypatch.setattr(engine, "collect_frames", lambda *a, **k: pytest.fail("it was decoded again"))
    assert clipact(*words, tmp_path / "two.parquet").code == 0
    assert (tmp_path / "two.parquet").read_bytes() == (tmp_path / "one.parquet").read_bytes()
    assert any(kind.entries for kind in Cache().info())


def test_wrong_usage_is_said_before_a_model_is_loaded(clipact, videos, table, tmp_path, monkeypatch):
    from clipact.models import zoo

    monkeypatch.setattr(zoo, "load_model", lambda *a, **k: pytest.fail("the model was loaded"))
    done = clipact("embed", videos, "--out", tmp_path / "f.csv")
    assert done.code == 2
    assert ".parquet" in done.err
    done = clipact("embed", videos, "--out", tmp_path / "nowhere" / "f.parquet")
    assert done.code == 2
    assert "nowhere" in done.err
    done = clipact("embed", videos, "--data", videos, "--out", tmp_path / "f.parquet")
    assert done.code == 2
    assert "--data" in done.err
    done = clipact("embed", table, videos, "--data", videos, "--out", tmp_path / "f.parquet")
    assert done.code == 2
    done = clipact("embed", tmp_path / "gone.csv", "--out", tmp_path / "f.parquet")
    assert done.code == 2
    assert "gone.csv" in done.err
    assert "Traceback" not in done.err
    done = clipact("embed", f"@{tmp_path / 'gone.txt'}", "--out", tmp_path / "f.parquet")
    assert done.code == 2
    assert not (tmp_path / "f.parquet").exists()


def test_a_line_of_the_table_that_is_wrong_ends_the_run(clipact, tiny, videos, tmp_path):
    (tmp_path / "t.csv").write_text("path,start_seconds\na.mp4,0\nb.mp4,soon\n")
    done = clipact("embed", tmp_path / "t.csv", "--data", videos, "-m", tiny, "-o", tmp_path / "f.parquet")
    assert done.code == 2
    assert "soon" in done.err
    assert not (tmp_path / "f.parquet").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_name_that_is_not_utf8(clipact, tiny, videos, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    try:
        shutil.copy(videos / "a.mp4", folder / os.fsdecode(b"caf\xe9.mp4"))
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    (folder / os.fsdecode(b"not \xe9.mp4")).write_text("no video")
    done = clipact("embed", folder, "-m", tiny, "-o", tmp_path / "f.parquet")
    assert done.code == 1
    assert [bool(row.error) for row in read(tmp_path / "f.parquet")[1]] == [False, True]
    assert "caf\\udce9.mp4" in read(tmp_path / "f.parquet")[1][0].path
