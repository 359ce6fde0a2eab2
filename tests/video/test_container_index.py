"""The index of a container gives the timeline that the walk over its packets gives, or none."""

import importlib.util
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from clipact.clip_spec import ClipSpec
from clipact.video import collect, container_index, kept_timelines, matroska_index
from clipact.video.clip import FramesDifferError, read_timeline
from clipact.video.container_index import read_index
from clipact.video.decode_pyav import PyavVideo
from clipact.video.idle_media import IdleMedia
from clipact.video.load import load_clip, load_clips
from clipact.video.matroska_index import confirm
from clipact.video.media import Media
from tests.video.corpus import ffmpeg, need
from tests.video.drawing import draw_video, number_in

_X264 = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p"
_SOURCE = "-f lavfi -i testsrc2=size=64x48:rate={rate}:duration={seconds}"
_JITTER = "-vf settb=1/1000,setpts='(N+mod(N\\,3)/4)/25/TB' -fps_mode passthrough -enc_time_base 1/1000"

# name: (ending, rate, options)
TRUSTED = {
    "b-frames": ("mp4", "30", f"{_X264} -g 10 -bf 3"),
    "no b-frames": ("mov", "30", f"{_X264} -g 10 -bf 0"),
    "header first": ("mp4", "30", f"{_X264} -g 10 -bf 2 -movflags +faststart"),
    "late clock": ("mp4", "30", f"{_X264} -g 10 -bf 2 -output_ts_offset 5"),
    "uneven times": ("mp4", "25", f"{_JITTER} -video_track_timescale 90000 {_X264} -g 10 -bf 2"),
    "open gop": ("mp4", "30", f"{_X264} -x264-params open-gop=1:keyint=10:bframes=3:scenecut=0"),
    "each a key": ("mp4", "30", f"{_X264} -g 1"),
    "hevc": ("mp4", "30", "-c:v libx265 -preset ultrafast -x265-params log-level=error:keyint=10:bframes=3"),
    "with sound": ("mp4", "30", f"-f lavfi -i sine=d=4 -c:a aac {_X264} -g 10 -bf 2"),
    "matroska": ("mkv", "30", f"{_X264} -g 10 -bf 3"),
    "matroska ntsc": ("mkv", "30000/1001", f"{_X264} -g 10 -bf 2"),
    "matroska film": ("mkv", "24000/1001", f"{_X264} -g 7 -bf 2"),
    "matroska open gop": ("mkv", "30", f"{_X264} -x264-params open-gop=1:keyint=10:bframes=3:scenecut=0"),
    "matroska late clock": ("mkv", "30", f"{_X264} -g 10 -bf 2 -output_ts_offset 5.128"),
    "matroska with sound": ("mkv", "30", f"-f lavfi -i sine=d=4 -c:a aac {_X264} -g 10 -bf 2"),
    "webm": ("webm", "30", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 10"),
}
REFUSED = {
    "fragments": ("mp4", "30", f"{_X264} -g 10 -bf 2 -movflags frag_keyframe+empty_moov"),
    "one key frame": ("mp4", "30", f"{_X264} -g 999"),
    "b-frames without times of their own": ("mp4", "30", f"{_X264} -g 10 -bf 3 -bsf:v setts=pts=DTS:dts=DTS"),
    "matroska, uneven times": ("mkv", "25", f"{_JITTER} {_X264} -g 10"),
    "matroska without cues": ("mkv", "30", f"{_X264} -g 10 -live 1"),
    "matroska that lost a frame": ("mkv", "30", f"-vf select='not(eq(n\\,57))' -fps_mode vfr {_X264} -g 10 -bf 0"),
    "vp8, which hides frames": ("webm", "30", "-c:v libvpx -deadline realtime -cpu-used 8 -g 10"),
    "transport stream": ("ts", "30", f"{_X264} -g 10"),
}


@pytest.fixture(autouse=True)
def _short_files_too(monkeypatch):
    """All files are read by their index, and nothing is remembered."""
    monkeypatch.setattr(container_index, "LEAST_FRAMES", 0)
    monkeypatch.setattr(matroska_index, "_CHECKED_STRETCHES", 3)
    _forget(monkeypatch)


def _forget(monkeypatch):
    monkeypatch.setattr(collect, "_IDLE", IdleMedia())
    kept_timelines._TIMELINES._forget()


def _draw(folder, name, table):
    ending, rate, options = table[name]
    path = folder / f"{name.replace(' ', '-')}.{ending}"
    ffmpeg(f"{_SOURCE.format(rate=rate, seconds=4)} {options} {{}}", path)
    return path


def _read_both(path):
    """The timeline by the index, with all of its stretches confirmed, and by the walk; how many were reckoned."""
    with closing(Media(f"file:{path}", name=path.name)) as media:
        indexed = read_index(media)
        whole = indexed and confirm(media, indexed, range(len(indexed)))
        return indexed, whole, read_timeline(media)


@pytest.mark.parametrize("name", TRUSTED)
def test_the_index_gives_what_the_packets_give(tmp_path, name):
    path = _draw(tmp_path, name, TRUSTED)
    indexed, whole, walked = _read_both(path)
    assert indexed is not None
    assert np.array_equal(whole.ticks, walked.ticks)
    assert np.abs(indexed.ticks - walked.ticks).max() <= 1
    assert (whole.last_ticks, whole.time_base) == (walked.last_ticks, walked.time_base)
    assert len(whole.keys) > 3
    assert {key.tick for key in whole.keys} <= {key.tick for key in walked.keys}
    if path.suffix != ".mkv" and path.suffix != ".webm":
        assert set(whole.keys) <= set(walked.keys)
    by_rate = ("its frames are counted by its constant rate, " * (path.suffix in (".mkv", ".webm"))) or None
    assert tuple(note for note in whole.notes if not by_rate or by_rate not in note) == walked.notes
    assert bool(by_rate) == any("constant rate" in note for note in whole.notes)


@pytest.mark.parametrize("name", REFUSED)
def test_an_index_that_does_not_tell_all_is_left(tmp_path, name):
    path = _draw(tmp_path, name, REFUSED)
    with closing(Media(f"file:{path}", name=path.name)) as media:
        assert read_index(media) is None


def test_a_file_that_was_cut_is_walked(tmp_path):
    data = _draw(tmp_path, "header first", TRUSTED).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) * 7 // 10])
    indexed, _, walked = _read_both(path)
    assert indexed is None
    assert any("cut short" in note for note in walked.notes)


def test_an_edit_that_hides_frames_is_walked(tmp_path):
    whole, path = _draw(tmp_path, "b-frames", TRUSTED), tmp_path / "edited.mp4"
    ffmpeg("-ss 1.1 -i {} -c copy {}", whole, path)
    indexed, _, walked = _read_both(path)
    assert indexed is None
    assert len(walked) == 87


SPECS = [
    ClipSpec(frames=8, size=(48, 64), resize="squash", sampling=sampling, **more)
    for sampling, more in (
        ("uniform", {}),
        ("segment_centers", {}),
        ("strided", {"stride": 5}),
        ("fps", {"rate_fps": 7.0}),
    )
]


@pytest.mark.parametrize("name", ["b-frames", "uneven times", "matroska", "matroska ntsc", "matroska late clock"])
@pytest.mark.parametrize("span", [(None, None), (2.51, 3.2)])
def test_the_same_frames_as_by_the_walk(tmp_path, monkeypatch, name, span):
    path = _draw(tmp_path, name, TRUSTED)
    walks = []
    plain = PyavVideo.timeline
    monkeypatch.setattr(PyavVideo, "timeline", lambda video: walks.append(video.name) or plain(video))

    def load(spec):
        _forget(monkeypatch)
        walks.clear()
        return load_clips(path, spec, clips=2, start_seconds=span[0], end_seconds=span[1])

    indexed = []
    for spec in SPECS:
        indexed.append(load(spec))
        assert not walks
    monkeypatch.setattr(container_index, "_CODECS", set())
    for spec, by_index in zip(SPECS, indexed, strict=True):
        by_walk = load(spec)
        assert walks
        for one, other in zip(by_index, by_walk, strict=True):
            assert one.stamps == other.stamps
            assert np.array_equal(one.frames, other.frames)
            assert one.duration_seconds == other.duration_seconds


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_only_the_stretch_that_is_asked_for_is_read(tmp_path, monkeypatch, ending):
    path = draw_video(tmp_path / f"long.{ending}", frames=600, rate=30, gop=10)
    read = []
    plain = Media.packets
    monkeypatch.setattr(Media, "packets", lambda media: (read.append(1) or packet for packet in plain(media)))
    clip = load_clip(path, 15.0, 15.3, frames=4)
    assert [number_in(frame) for frame in clip.frames] == [450, 452, 454, 457] == [s.index for s in clip.stamps]
    assert len(read) < 300


def test_a_stretch_that_differs_is_walked(tmp_path, monkeypatch):
    """A frame is missing where nothing was checked beforehand: who asks for that stretch gets the walk's answer."""
    path = tmp_path / "lost.mkv"
    ffmpeg(
        f"{_SOURCE.format(rate=30, seconds=8)} -vf select='not(eq(n\\,110))' -fps_mode vfr {_X264} -bf 0 "
        f"-force_key_frames 0.5,1,1.5,2,2.5,3,3.5,4,4.5,5,5.5,6,6.5,7,7.5 {{}}",
        path,
    )
    monkeypatch.setattr(matroska_index, "_CHECKED_STRETCHES", 1)
    with closing(Media(f"file:{path}", name=path.name)) as media:
        indexed = read_index(media)
        assert len(indexed) == 240  # one too many
        with pytest.raises(FramesDifferError):
            confirm(media, indexed, [106])
        assert confirm(media, indexed, [150]) is indexed
    clip = load_clip(path, 3.4, 3.6, frames=4)
    assert [stamp.index for stamp in clip.stamps] == [102, 103, 105, 106]
    assert clip.notes == ()
    assert clip.duration_seconds == 8.0


def test_times_that_the_rate_misses_by_a_tick_are_those_of_the_packets(tmp_path):
    whole, path = tmp_path / "whole.mkv", tmp_path / "late.mkv"
    ffmpeg(f"{_SOURCE.format(rate=30, seconds=4)} {_X264} -g 10 -bf 0 {{}}", whole)
    ffmpeg("-i {} -c copy -bsf:v setts=ts=floor(N*1000/30)+gt(mod(N\\,10)\\,6) {}", whole, path)
    indexed, confirmed, walked = _read_both(path)
    assert np.abs(indexed.ticks - walked.ticks).max() == 1
    assert np.array_equal(confirmed.ticks, walked.ticks)
    clip = load_clip(path, frames=8)
    assert [stamp.seconds for stamp in clip.stamps] == walked.seconds[[stamp.index for stamp in clip.stamps]].tolist()
    assert any("constant rate" in note for note in clip.notes)


@pytest.mark.parametrize("name", ["b-frames", "matroska", "webm"])
def test_torchcodec_by_the_index(tmp_path, name):
    need("torchcodec", importlib.util.find_spec("torchcodec") is not None)
    path = _draw(tmp_path, name, TRUSTED)
    plain, other = load_clip(path, 1.0, 3.0, frames=5), load_clip(path, 1.0, 3.0, frames=5, decoder="torchcodec")
    assert other.decoder == "torchcodec"
    assert (other.stamps, other.notes) == (plain.stamps, plain.notes)
    assert np.array_equal(other.frames, plain.frames)


def test_matroska_that_tells_how_many_frames_it_has(tmp_path):
    whole, told, wrong = _draw(tmp_path, "matroska", TRUSTED), tmp_path / "told.mkv", tmp_path / "wrong.mkv"
    for path, count in ((told, 120), (wrong, 119)):
        ffmpeg(f"-i {{}} -c copy -metadata:s:v:0 NUMBER_OF_FRAMES={count} {{}}", whole, path)
    indexed, _, walked = _read_both(told)
    assert (indexed.notes, len(indexed)) == ((), len(walked))
    assert _read_both(wrong)[0] is None


def test_tables_that_lie_are_left(tmp_path):
    """Each number of the tables is spoilt in turn: the timeline is that of the packets, or none."""
    path = draw_video(tmp_path / "a.mp4", frames=60, gop=10)
    data, spoilt = path.read_bytes(), tmp_path / "b.mp4"
    for kind in (b"stts", b"ctts", b"stss", b"elst", b"tkhd", b"stsd"):
        start = data.index(kind) + 4
        for place in range(start, start + 28, 4):
            for number in (0, 1, 2**31 - 1, 2**32 - 1):
                spoilt.write_bytes(data[:place] + number.to_bytes(4, "big") + data[place + 4 :])
                try:
                    media = Media(f"file:{spoilt}", name="b.mp4")
                except Exception:
                    continue
                with closing(media):
                    if (indexed := read_index(media)) is not None:
                        walked = read_timeline(media)
                        assert np.array_equal(indexed.ticks, walked.ticks), (kind, place - start, number)
                        assert replace(indexed, keys=()).last_ticks == walked.last_ticks
