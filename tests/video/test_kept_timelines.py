"""Timelines on disk, by content; raw streams, whose frames are counted by their packets."""

import os
import shutil

import numpy as np
import pytest

from clipact.cache import Cache
from clipact.video import collect, decode_sequential, kept_timelines
from clipact.video.decode_pyav import PyavVideo
from clipact.video.idle_media import IdleMedia
from clipact.video.load import load_clip
from tests.video.corpus import ffmpeg
from tests.video.drawing import draw_video, number_in

_WHEN_NS = (10**18 + 5 * 10**8,) * 2


@pytest.fixture
def walks(tmp_path, monkeypatch):
    """The files whose packets were walked; every timeline is kept in a cache of its own, and none in memory."""
    monkeypatch.setenv("CLIPACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_timelines, "LEAST_BYTES", 0)
    monkeypatch.setattr(kept_timelines, "_LEAST_FRAMES", 0)
    walks, plain = [], PyavVideo.timeline
    monkeypatch.setattr(PyavVideo, "timeline", lambda video: walks.append(video.name) or plain(video))
    return walks


@pytest.fixture
def load(monkeypatch):
    """load_clip as a new process would call it."""

    def load(path, **options):
        monkeypatch.setattr(collect, "_IDLE", IdleMedia())
        kept_timelines._TIMELINES._forget()
        return load_clip(path, **options)

    return load


def _settle(path):
    os.utime(path, ns=_WHEN_NS)
    return path


def _same(one, other):
    return one.stamps == other.stamps and one.notes == other.notes and np.array_equal(one.frames, other.frames)


@pytest.mark.parametrize("ending", ["ts", "mp4", "avi"])
def test_a_timeline_is_read_once_for_all_processes(tmp_path, walks, load, ending):
    path = _settle(draw_video(tmp_path / f"a.{ending}", codec="libx264" if ending != "avi" else "mpeg4", b_frames=0))
    first = load(path)
    assert len(walks) == 1
    assert _same(load(path), first)
    copy = tmp_path / f"b.{ending}"
    shutil.copy2(path, copy)
    assert _same(load(copy), first)
    assert len(walks) == 1
    assert [number_in(frame) for frame in first.frames] == [stamp.index for stamp in first.stamps]


def test_a_changed_file_is_read_anew(tmp_path, walks, load):
    path = _settle(draw_video(tmp_path / "a.ts", frames=40))
    load(path)
    data = path.read_bytes()
    path.write_bytes(data[:-188])  # shorter
    load(_settle(path))
    path.write_bytes(data)
    os.utime(path, ns=(_WHEN_NS[0] + 1, _WHEN_NS[1] + 1))  # later
    load(path)
    path.write_bytes(bytes([data[0], data[1], data[2] ^ 1, *data[3:]]))  # another beginning
    load(_settle(path))
    assert len(walks) == 4


def test_a_spoilt_entry_is_none(tmp_path, walks, load):
    path = _settle(draw_video(tmp_path / "a.ts"))
    first = load(path)
    cache = Cache()
    (key,) = cache.keys("timelines")
    for spoilt in ({"ticks": np.zeros(0, np.int64)}, {**cache.read("timelines", key), "ticks": np.zeros(40, np.int64)}):
        cache.write("timelines", key, spoilt)
        assert _same(load(path), first)
    assert len(walks) == 3


def test_a_short_file_leaves_nothing_on_disk(tmp_path, monkeypatch, load):
    monkeypatch.setenv("CLIPACT_CACHE", str(tmp_path / "cache"))
    load(_settle(draw_video(tmp_path / "a.ts")))
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, walks, load, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("CLIPACT_CACHE", str(tmp_path / "file"))
    path = _settle(draw_video(tmp_path / "a.ts"))
    assert _same(load(path), load(path))


def _draw_raw(folder, ending, more=""):
    whole, path = draw_video(folder / "whole.mp4", frames=50), folder / f"raw.{ending}"
    codec = "libx265 -x265-params log-level=error:keyint=12" if ending == "hevc" else "libx264 -g 12 -bf 2"
    ffmpeg(f"-i {{}} -c:v {codec} {more} -preset ultrafast {{}}", whole, path)
    return path


@pytest.fixture
def decoded(monkeypatch):
    """A number for each frame that comes out of a decoder where frames are counted."""
    decoded, plain = [], decode_sequential.feed

    def feed(context, packet, **more):
        frames = plain(context, packet)
        decoded.extend(1 for _ in frames)
        return frames

    monkeypatch.setattr(decode_sequential, "feed", feed)
    return decoded


@pytest.mark.parametrize("ending", ["h264", "hevc"])
def test_a_raw_stream_is_decoded_once(tmp_path, load, decoded, ending):
    clip = load(_draw_raw(tmp_path, ending), frames=10)
    assert len(decoded) == 50
    assert [number_in(frame) for frame in clip.frames] == [stamp.index for stamp in clip.stamps]
    assert clip.stamps[-1].index == 47


def test_a_raw_stream_whose_packets_are_not_its_frames_is_counted(tmp_path, monkeypatch, load, decoded):
    """The first picture is lost, and with it those that refer to it: there are more packets than frames."""
    data = _draw_raw(tmp_path, "h264").read_bytes()
    cut = tmp_path / "cut.h264"
    start = data.index(b"\0\0\1\x65")  # the first IDR slice
    cut.write_bytes(data[:start] + data[data.index(b"\0\0\1", start + 4) :])
    clip = load(cut, frames=10)
    tries = len(decoded)
    decoded.clear()
    monkeypatch.setattr(decode_sequential, "_RAW_FORMATS", set())
    assert _same(load(cut, frames=10), clip)
    assert tries > len(decoded)
