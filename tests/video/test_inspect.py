import av
import numpy as np
import pytest
from PIL import Image

from clipact.errors import VideoError
from clipact.video.draw import draw_strip
from clipact.video.inspect import inspect
from clipact.video.load import load_clip

from .corpus import ROTATIONS, draw, draw_rotated
from .drawing import draw_video, numbered_picture


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
