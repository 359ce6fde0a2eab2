import importlib.util

import av
import numpy as np
import pytest
from PIL import Image

from clipact.clip_spec import ClipSpec
from clipact.errors import VideoError
from clipact.video.draw import draw_strip
from clipact.video.inspect import inspect
from clipact.video.load import load_clip, load_clips

from .corpus import ROTATIONS, draw, draw_rotated, need
from .drawing import draw_video, number_in, numbered_picture


def test_a_plain_file_has_nothing_odd(tmp_path):
    path = draw_video(tmp_path / "a.mp4", frames=40, gop=10)
    found = inspect(path)
    assert found.source == str(path)
    assert (found.codec, found.pixel_format) == ("h264", "yuv420p")
    assert (found.width, found.height, found.rotation_degrees) == (96, 64, 0)
    assert (found.frames, found.duration_seconds, found.rate_fps) == (40, 4.0, 10.0)
    with av.open(str(path)) as container:
        keys = [frame.key_frame for frame in container.decode(video=0)]
    assert found.key_frames == sum(keys) >= 4
    assert found.odd == ()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("variable frame rate", "variable frame rate"),
        ("non-square pixels", "not square (4:3)"),
        ("mpeg-ts with a start offset", "starts at 3602"),
        ("hevc 10-bit hdr", "high dynamic range (PQ)"),
        ("h264 interlaced", "interlaced"),
        ("mpeg-4 avi with b-frames", "time stamps do not hold"),
    ],
)
def test_what_is_odd_is_said(tmp_path, name, words):
    odd = inspect(draw(name, tmp_path)).odd
    assert any(words in remark for remark in odd), odd


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("non-square pixels", "not square (4:3); models see them as stored"),
        ("hevc 10-bit hdr", "high dynamic range (PQ): its tones are mapped"),
        ("h264 interlaced", "interlaced: fast motion shows combs"),
    ],
)
@pytest.mark.parametrize("decoder", ["pyav", "torchcodec"])
def test_what_is_odd_is_said_of_every_clip(tmp_path, name, words, decoder):
    need("torchcodec", decoder == "pyav" or importlib.util.find_spec("torchcodec") is not None)
    path = draw(name, tmp_path)
    for clip in load_clips(path, ClipSpec(frames=2, size=(16, 16)), clips=2, decoder=decoder):
        assert sum(words in note for note in clip.notes) == 1, clip.notes
    assert any(words in remark for remark in inspect(path).odd)


def test_a_screen_recording_is_seen_at_equal_times_and_the_note_says_so(tmp_path):
    """30 frames in the first second, then one every three seconds, as screen recorders write them."""
    path = tmp_path / "screen.mkv"
    shown = [*(number / 30 for number in range(30)), *range(3, 40, 3)]
    draw_video(path, frames=len(shown), seconds=shown, codec="mpeg4", b_frames=0)
    clip = load_clip(path)
    numbers = [number_in(frame) for frame in clip.frames]
    assert numbers == [stamp.index for stamp in clip.stamps]
    # in the middles of eight equal parts of the 39 seconds and what the last frame lasts
    assert np.abs(np.diff([stamp.seconds for stamp in clip.stamps]) - 5).max() <= 2.1
    words = "variable frame rate: half of its frames come from 0.7 of 39.0 s"
    assert clip.notes == (f"{words}; frames are taken at equal times",)
    assert words in inspect(path).odd
    counted = load_clip(path, spec=ClipSpec(sampling="segment_centers_by_number", size=(16, 16)))
    assert sum(stamp.seconds < 1 for stamp in counted.stamps) == 6
    assert counted.notes == (f"{words}; frames are taken at equal numbers",)
    every = load_clip(path, frames=len(shown))
    assert [stamp.index for stamp in every.stamps] == list(range(len(shown)))


@pytest.mark.parametrize("name", ["h264 short gop", "vp9 without a frame count", "mjpeg", "grey", "odd size"])
def test_what_is_not_odd_is_not_said(tmp_path, name):
    assert inspect(draw(name, tmp_path)).odd == ()


@pytest.mark.parametrize("name", ROTATIONS)
def test_the_size_is_that_of_the_frames_as_shown(tmp_path, name):
    path = draw_rotated(tmp_path, ROTATIONS[name])
    found = inspect(path)
    assert load_clip(path).frames.shape[1:3] == (found.height, found.width)
    degrees = {"turned by 90": 90, "turned by 180": 180, "turned by 270": 270}.get(name, 0)
    assert found.rotation_degrees == degrees
    assert any("mirrored" in remark for remark in found.odd) == (name == "mirrored")


def test_a_cut_file_and_one_with_rare_key_frames(tmp_path):
    whole = draw_video(tmp_path / "whole.avi", codec="mpeg4", b_frames=0, frames=300, gop=300)
    assert any("up to 30 s without a key frame" in remark for remark in inspect(whole).odd)
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert any("cut short" in remark for remark in inspect(cut).odd)
    with pytest.raises(VideoError):
        inspect(tmp_path / "missing.avi")


def test_pictures(tmp_path):
    Image.fromarray(numbered_picture(1)).save(tmp_path / "one.png")
    found = inspect(tmp_path / "one.png")
    assert (found.frames, found.duration_seconds, found.rate_fps) == (1, None, None)
    assert inspect(tmp_path).frames == 1
    assert inspect(np.stack([numbered_picture(i) for i in range(5)])).frames == 5


def test_a_strip_shows_each_frame_where_it_belongs(tmp_path):
    clip = load_clip(draw_video(tmp_path / "a.mp4"), frames=5)
    strip = np.asarray(draw_strip(clip, columns=3))
    assert strip.shape == (2 * (64 + 24) + 6, 3 * (96 + 6) + 6, 3)
    for place, frame in enumerate(clip.frames):
        top, left = 6 + place // 3 * 88, 6 + place % 3 * 102
        assert np.array_equal(strip[top : top + 64, left : left + 96], frame)
        below = strip[top + 64 : top + 82, left : left + 96]
        assert below.min() < 100  # its number and second are written there
    assert strip[6 + 88 : 6 + 88 + 82, 6 + 2 * 102 : 6 + 2 * 102 + 96].min() == 255  # and nothing in the sixth place
