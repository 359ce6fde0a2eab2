"""Files that stay open between two stretches give the frames that freshly opened ones give."""

import importlib.util
import os
import random
from dataclasses import replace

import numpy as np
import pytest

from clipact.clip_spec import ClipSpec
from clipact.errors import UsageError, VideoError
from clipact.file_memo import identify_file
from clipact.video import collect, kept_timelines
from clipact.video.decode_pyav import PyavVideo
from clipact.video.idle_media import IdleMedia
from clipact.video.load import load_clips
from clipact.video.media import Media
from clipact.video.sampling import segment_centers

from .corpus import need
from .drawing import draw_video, number_in

SPEC = ClipSpec(frames=3, size=(64, 96), resize="squash")


@pytest.fixture
def opened(monkeypatch):
    """The places of the files that were opened; nothing is idle or remembered at first."""
    opened, plain = [], Media._open
    monkeypatch.setattr(Media, "_open", lambda media: opened.append(media.place) or plain(media))
    monkeypatch.setattr(collect, "_IDLE", IdleMedia())
    kept_timelines._TIMELINES._forget()
    return opened


def draw_settled(path, **options):
    draw_video(path, **options)
    os.utime(path, (1e9 + 0.5, 1e9 + 0.5))
    return path


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "mov", "avi"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("decoder_threads", [None, 1])
def test_the_same_frames_in_any_order(tmp_path, opened, ending, codec, decoder_threads):
    path = draw_settled(tmp_path / f"a.{ending}", frames=60, codec=codec, gop=10)
    order = random.Random(1)
    for _ in range(25):
        start = order.uniform(0, 5)
        span = {"start_seconds": start, "end_seconds": start + order.uniform(0.3, 1.0)}
        (clip,) = load_clips(path, SPEC, decoder_threads=decoder_threads, **span)
        assert [number_in(frame) for frame in clip.frames] == [stamp.index for stamp in clip.stamps]
        with path.open("rb") as file:  # always opened anew
            (fresh,) = load_clips(file, SPEC, **span)
        assert np.array_equal(clip.frames, fresh.frames)
        assert replace(clip, frames=fresh.frames) == replace(fresh, frames=fresh.frames)


def test_a_file_is_opened_and_its_packets_are_read_once(tmp_path, opened, monkeypatch):
    path, other = (draw_settled(tmp_path / name) for name in ("a.mp4", "b.mp4"))
    walks, plain = [], PyavVideo.timeline
    monkeypatch.setattr(PyavVideo, "timeline", lambda video: walks.append(video.name) or plain(video))
    for start in (0.0, 2.0, 1.0):
        for file in (path, str(other)):
            (clip,) = load_clips(file, SPEC, start_seconds=start, end_seconds=start + 1)
            assert clip.source == str(file)
    assert len(opened) == 2
    assert walks == [str(path), str(other)]
    load_clips(path, SPEC, decoder_threads=1)
    assert len(opened) == 3


def test_a_file_whose_stamps_do_not_hold_is_counted_once(tmp_path, opened, monkeypatch):
    path = draw_settled(tmp_path / "packed.avi", codec="mpeg4", b_frames=2)
    tried = []
    for way in (PyavVideo, collect.SequentialVideo):
        plain = way.timeline
        monkeypatch.setattr(way, "timeline", lambda v, w=way, p=plain: tried.append(w.__name__) or p(v))
    for start in (0.0, 2.0, 1.0):
        (clip,) = load_clips(path, SPEC, start_seconds=start, end_seconds=start + 1)
        assert [number_in(frame) for frame in clip.frames] == [stamp.index for stamp in clip.stamps]
    assert tried == ["PyavVideo", "SequentialVideo"]


@pytest.mark.parametrize("decoder", ["pyav", "torchcodec"])
def test_a_file_that_is_open_while_its_timeline_is_forgotten(tmp_path, opened, decoder):
    if decoder == "torchcodec":
        need("torchcodec", importlib.util.find_spec("torchcodec") is not None)
    path = draw_settled(tmp_path / "a.mp4")
    load_clips(path, SPEC)
    kept_timelines._TIMELINES._forget()
    (clip,) = load_clips(path, SPEC, start_seconds=2.0, decoder=decoder)
    assert clip.duration_seconds == 4.0
    assert (
        [number_in(frame) for frame in clip.frames]
        == [stamp.index for stamp in clip.stamps]
        == [20 + number for number in segment_centers(20, 3)]
    )


def test_a_changed_file_is_opened_again(tmp_path, opened):
    path = draw_settled(tmp_path / "a.mp4", frames=40)
    assert load_clips(path, SPEC)[0].duration_seconds == 4.0
    draw_video(path, frames=20)
    assert load_clips(path, SPEC)[0].duration_seconds == 2.0
    path.unlink()
    with pytest.raises(VideoError, match="no such file"):
        load_clips(path, SPEC)


def test_damaged_frames_do_not_depend_on_what_was_decoded_before(tmp_path, opened, monkeypatch):
    path = draw_video(tmp_path / "a.mp4", frames=60, gop=20)
    data, spots = bytearray(path.read_bytes()), random.Random(2)
    media_starts = data.index(b"mdat") + 1000
    for _ in range(8):
        data[spots.randrange(media_starts, media_starts + (len(data) - media_starts) // 2)] ^= 255
    path.write_bytes(data)
    os.utime(path, (1e9 + 0.5, 1e9 + 0.5))

    def load(start):
        (clip,) = load_clips(path, SPEC, start_seconds=start, end_seconds=start + 1.5, decoder_threads=1)
        return clip

    fresh = {}
    for start in (0.0, 1.0, 2.0, 3.0):
        monkeypatch.setattr(collect, "_IDLE", IdleMedia())
        fresh[start] = load(start)
    assert any("damaged" in note for clip in fresh.values() for note in clip.notes)
    before = len(opened)
    for start in (3.0, 0.0, 2.0, 1.0, 0.0):
        clip = load(start)
        assert np.array_equal(clip.frames, fresh[start].frames)
        assert clip.notes == fresh[start].notes
    assert len(opened) == before


def test_what_failed_is_not_kept_open(tmp_path, opened):
    path = draw_settled(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match="past its end"):
        load_clips(path, SPEC, start_seconds=9.0)
    load_clips(path, SPEC)
    assert len(opened) == 2


def test_idle_files_are_bounded(tmp_path):
    paths = [draw_settled(tmp_path / f"{number}.mp4") for number in range(3)]
    media = [Media(f"file:{path}", name=path.name) for path in paths]
    one = (8 + 1) * 96 * 64 * 1.5 + 32 * 40
    idle = IdleMedia(limit_bytes=int(2.5 * one))
    for path, file in zip(paths, media, strict=True):
        file.use_threads(1)
        idle.give(identify_file(path), file)
    assert [idle.take(identify_file(path), threads=1) for path in paths] == [None, media[1], media[2]]
    assert idle.take(identify_file(paths[2]), threads=1) is None  # it is taken
    assert len(media[0]._container.streams) == 0  # it is closed
    small = IdleMedia(limit_bytes=1)
    for path, file in zip(paths[1:], media[1:], strict=True):
        small.give(identify_file(path), file)
    assert [small.take(identify_file(path), threads=1) for path in paths[1:]] == [None, media[2]]


def test_a_forked_process_opens_its_own(tmp_path, opened):
    path = draw_settled(tmp_path / "a.mp4")
    (clip,) = load_clips(path, SPEC)
    child = os.fork()
    if not child:
        (again,) = load_clips(path, SPEC)
        os._exit(0 if np.array_equal(clip.frames, again.frames) and len(opened) == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    load_clips(path, SPEC)
    assert len(opened) == 1


def test_a_number_of_threads_that_none_can_be(tmp_path):
    with pytest.raises(UsageError, match="decoder_threads is 0"):
        load_clips(draw_video(tmp_path / "a.mp4"), SPEC, decoder_threads=0)
