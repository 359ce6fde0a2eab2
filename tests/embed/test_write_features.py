"""A file of features has a row for each video, in order, and the same bytes however it came about."""

import hashlib
import itertools
import os

import numpy as np
import pytest

from clipact.cache import Cache
from clipact.embed.clip_source import ClipSource
from clipact.embed.embed import embed_videos
from clipact.embed.embed_clips import EmbedRequest, embed_clips
from clipact.embed.feature_file import FeatureFile
from clipact.embed.options import EmbedOptions
from clipact.embed.write_features import write_features
from clipact.errors import ModelError, ResultError, UsageError, VideoError
from clipact.models.zoo import Model, load_model
from tests.embed.straight_loop import dual_encoder, embed_straight

UNREADABLE = {"broken.mp4", "gone.mp4"}


@pytest.fixture(scope="module")
def model():
    return made("quick frames")


def made(tower):
    """A tiny model as an engine."""
    return Model(name=tower, encoder=dual_encoder(tower), key="ab" * 32, trained_on=(), license="", folder=None)


def write(path, rows, model, *, options=None, **more):
    return list(write_features(path, rows, model, options=options or EmbedOptions(workers=2, threads=1), **more))


def read(path):
    with FeatureFile(path) as file:
        return list(file)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("tower", ["quick frames", "vivit"])
@pytest.mark.parametrize("clips", [1, 3])
def test_a_row_a_video_with_its_embedding_or_error(tower, clips, mixed, tmp_path):
    written = write(tmp_path / "a.parquet", mixed, made(tower), clips=clips)
    assert [one.name for one in written] == [row.name for row in mixed]
    with FeatureFile(tmp_path / "a.parquet") as file:
        assert (file.metadata.dim, file.metadata.clips, file.metadata.per_frame) == (6, clips, False)
        assert file.metadata.clip == made(tower).spec
    for kept, row in zip(read(tmp_path / "a.parquet"), mixed, strict=True):
        assert (kept.path, kept.start_seconds, kept.end_seconds) == (row.name, row.start_seconds, row.end_seconds)
        if row.name == "gone.mp4":
            assert kept.sha256 is None
        else:
            assert kept.sha256 == (sha256(row.source) if kept.error is None else None)
        if row.name in UNREADABLE:
            assert kept.embedding is None
            assert kept.error
        else:
            mean = embed_straight(tower, row, clips=clips).mean(0)
            np.testing.assert_allclose(kept.embedding, mean / np.linalg.norm(mean), rtol=0, atol=1e-5)
            assert kept.error is None


@pytest.mark.parametrize("clips", [1, 2])
def test_a_row_a_frame_with_the_backbones_features(clips, model, source, tmp_path):
    """Each distinct frame once, by its number, though a short video repeats it."""
    rows = [source("a.mp4"), source("broken.mp4"), source("c.mp4"), source("a.mp4", 1.0, 2.0)]
    spec = model.spec.with_frames(8)
    write(tmp_path / "frames.parquet", rows, model, per_frame=True, spec=spec, clips=clips)
    encoder = model.clip_encoder(spec, clips=clips)
    request = EmbedRequest(encoder=encoder, features=True)
    for kept, found in zip(read(tmp_path / "frames.parquet"), embed_clips(rows, request), strict=True):
        if found.error is not None:
            assert kept.error == found.cause
            continue
        shown = {
            stamp.index: (stamp.seconds, vector)
            for stamps, vectors in zip(found.stamps, found.features, strict=True)
            for stamp, vector in zip(stamps, vectors, strict=True)
        }
        assert kept.frames.tolist() == sorted(shown)
        assert kept.seconds.tolist() == [shown[number][0] for number in sorted(shown)]
        np.testing.assert_array_equal(kept.embedding, [shown[number][1] for number in sorted(shown)])
        if found.name == "c.mp4":
            assert len(kept.frames) == 5


@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize("stop", [0, 1, 4, 8])
def test_stopped_and_resumed_it_has_the_same_bytes(per_frame, stop, model, mixed, tmp_path):
    whole, out, journal = tmp_path / "whole.parquet", tmp_path / "out.parquet", tmp_path / "journal"
    write(whole, mixed, model, per_frame=per_frame)
    running = write_features(out, mixed, model, per_frame=per_frame, options=EmbedOptions(journal=journal))
    assert len(list(itertools.islice(running, stop))) == stop
    running.close()
    assert not out.exists()
    assert journal.exists() == (stop > 0)
    assert not list(tmp_path.glob(".out.parquet.*"))
    cache = Cache(tmp_path / "cache")
    options = EmbedOptions(journal=journal, resume=True, cache=cache, workers=3)
    found = write(out, mixed, model, per_frame=per_frame, options=options)
    assert [one.name for one in found] == [row.name for row in mixed]
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "out.parquet", "whole.parquet"]


def test_what_a_killed_run_left_beside_the_file_is_removed(model, source, tmp_path):
    left = tmp_path / ".out.parquet.abcd1234"
    left.mkdir()
    (left / "out.parquet").write_text("half")
    write(tmp_path / "out.parquet", [source("c.mp4")], model)
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_an_older_file_stays_until_the_new_one_is_whole(model, source, tmp_path):
    out = tmp_path / "out.parquet"
    write(out, [source("c.mp4")], model)
    before = out.read_bytes()
    running = write_features(out, [source("a.mp4"), source("b.mp4")], model, options=EmbedOptions())
    next(running)
    assert out.read_bytes() == before
    next(running)
    assert list(running) == []
    assert [row.path for row in read(out)] == ["a.mp4", "b.mp4"]


def test_the_journal_of_rows_is_not_one_of_frames(model, mixed, tmp_path):
    running = write_features(tmp_path / "o.parquet", mixed, model, options=EmbedOptions(journal=tmp_path / "j"))
    next(running)
    running.close()
    for changed in ({"per_frame": True}, {"clips": 2}, {"spec": model.spec.with_frames(3)}):
        with pytest.raises(ResultError, match="another run"):
            write(
                tmp_path / "o.parquet",
                mixed,
                model,
                options=EmbedOptions(journal=tmp_path / "j", resume=True),
                **changed,
            )


def test_frames_of_a_tower_that_sees_clips_are_refused(source, tmp_path):
    with pytest.raises(UsageError, match="leave out --frames"):
        write(tmp_path / "out.parquet", [source("a.mp4")], made("vivit"), per_frame=True)
    assert not (tmp_path / "out.parquet").exists()


def test_a_model_whose_text_depends_on_the_video_is_refused(model, source, tmp_path, monkeypatch):
    monkeypatch.setattr(Model, "text_depends_on_video", True)
    with pytest.raises(ModelError, match="depends on the video"):
        write(tmp_path / "out.parquet", [source("a.mp4")], model)
    with pytest.raises(ModelError, match="depends on the video"):
        embed_videos([source("a.mp4")], model)


def test_names_that_are_not_utf8_are_written_with_their_bytes_in_words(model, films, tmp_path):
    row = ClipSource(source=films / "c.mp4", name=os.fsdecode(b"caf\xe9.mp4"))
    (found,) = write(tmp_path / "out.parquet", [row], model, options=EmbedOptions(journal=tmp_path / "journal"))
    assert found.name == row.name
    assert [kept.path for kept in read(tmp_path / "out.parquet")] == ["caf\\udce9.mp4"]


def test_embed_videos_gives_one_unit_vector_a_video(films, source, tmp_path):
    model = made("quick frames")
    videos = [str(films / "a.mp4"), source("b.mp4", 0.2, 1.0)]
    vectors = embed_videos(videos, model, frames=6, clips=2, options=EmbedOptions())
    for vector, row in zip(vectors, [source("a.mp4"), source("b.mp4", 0.2, 1.0)], strict=True):
        mean = embed_straight("quick frames", row, spec=model.spec.with_frames(6), clips=2).mean(0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), rtol=0, atol=1e-5)
    with pytest.raises(VideoError, match="broken"):
        embed_videos([films / "a.mp4", films / "broken.mp4"], model, options=EmbedOptions())
    assert embed_videos([], model).shape == (0, 6)


def test_embed_videos_by_the_name_of_a_model(tiny, films):
    model = load_model(str(tiny), device="cpu")
    np.testing.assert_allclose(
        embed_videos([films / "a.mp4"], str(tiny)), embed_videos([films / "a.mp4"], model), rtol=0, atol=1e-5
    )
