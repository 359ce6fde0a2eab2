"""Picture files whole, upright, with all their frames and times, and with deep grey scaled."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, features

from clipact import ClipSpec, load_clip
from clipact.errors import VideoError
from clipact.video.inspect import inspect
from clipact.video.picture_file import read_picture
from clipact.video.transforms import fit_crops
from tests.video.drawing import draw_video

avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")


def ramp(blue=40, height=48, width=64):
    """Red rises to the right, green to the bottom."""
    picture = np.full((height, width, 3), blue, np.uint8)
    picture[..., 0] = np.linspace(0, 255, width)[None]
    picture[..., 1] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(picture)


def near(found, wanted, most=8):
    return np.abs(found.astype(int) - np.asarray(wanted).astype(int)).mean() < most


@avif
def test_a_still_avif_is_whole_and_upright(tmp_path):
    turned = ramp().getexif()
    turned[0x0112] = 6  # to be turned clockwise by a quarter, which Pillow writes as irot
    ramp().save(tmp_path / "turned.avif", exif=turned, quality=95)
    clear = ramp()
    clear.putalpha(128)
    clear.save(tmp_path / "clear.avif", quality=95)
    assert near(load_clip(tmp_path / "turned.avif", frames=1).frames[0], ramp().transpose(Image.Transpose.ROTATE_270))
    assert near(load_clip((tmp_path / "clear.avif").read_bytes(), frames=1).frames[0], ramp())


@avif
def test_an_animated_avif_has_all_its_frames_and_their_times(tmp_path):
    frames = [ramp(blue) for blue in (0, 60, 120, 180, 240)]
    path, durations = tmp_path / "moving.avif", [100, 200, 300, 100, 40]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, quality=95)
    clip = load_clip(path, frames=5)
    assert [stamp.seconds for stamp in clip.stamps] == [0, 0.1, 0.3, 0.6, 0.7]
    assert clip.duration_seconds == 0.74
    assert all(near(found, frame) for found, frame in zip(clip.frames, frames, strict=True))


def test_a_phones_heic_is_whole_and_every_picture_of_several_counts(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    frames = [ramp(blue) for blue in (0, 120, 240)]
    heif.from_pillow(frames[0]).save(tmp_path / "one.heic", quality=95)
    several = heif.HeifFile()
    for frame in frames:
        several.add_from_pillow(frame)
    several.save(tmp_path / "three.heic", quality=95)
    assert near(load_clip(tmp_path / "one.heic", frames=1).frames[0], frames[0])
    assert near(read_picture(tmp_path / "one.heic"), frames[0])
    clip = load_clip(tmp_path / "three.heic", frames=3)
    assert all(near(found, frame) for found, frame in zip(clip.frames, frames, strict=True))
    folder = tmp_path / "numbered"
    folder.mkdir()
    for number, frame in enumerate(frames):
        heif.from_pillow(frame).save(folder / f"IMG_{number}.HEIC", quality=95)
    assert near(load_clip(folder, frames=3).frames[2], frames[2])


def test_a_heic_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    head = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf"
    (tmp_path / "a.heic").write_bytes(head + b"\0\0\0\x0cmeta\0\0\0\0")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(VideoError, match=r"pip install 'clipact\[heif\]'"):
        load_clip(tmp_path / "a.heic")


def test_a_video_that_claims_a_picture_brand_is_a_video(tmp_path):
    path = tmp_path / "v.mp4"
    draw_video(path, frames=12)
    data = bytearray(path.read_bytes())
    assert data[4:8] == b"ftyp"
    data[8:12] = b"mif1"
    path.write_bytes(data)
    assert inspect(path).frames == 12


def test_gif_delays_of_ten_milliseconds_or_less_are_those_of_browsers(tmp_path):
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (0, 60, 120, 180)]
    path = tmp_path / "hasty.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[0, 10, 20, 50])
    clip = load_clip(path, frames=4)
    assert [stamp.seconds for stamp in clip.stamps] == [0, 0.1, 0.2, 0.22]


def test_the_default_image_of_an_apng_is_no_frame(tmp_path):
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (255, 10, 20, 30)]
    path = tmp_path / "a.png"
    frames[0].save(path, save_all=True, default_image=True, append_images=frames[1:], duration=100)
    clip = load_clip(path, frames=3)
    assert clip.frames[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert clip.duration_seconds == pytest.approx(0.3)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    assert load_clip(path, frames=4).frames[:, 0, 0, 0].tolist() == [255, 10, 20, 30]


VALUES = np.array([[0, 257, 1000], [32896, 65278, 65535]], np.uint16)


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_grey_of_16_bits_is_divided_by_257(tmp_path, name):
    Image.fromarray(VALUES).save(tmp_path / name)
    clip = load_clip(tmp_path / name, frames=1)
    assert clip.frames[0, ..., 0].tolist() == [[0, 1, 4], [128, 254, 255]]
    assert "16 bits" in clip.notes[0]
    assert "16 bits" in inspect(tmp_path / name).odd[0]


def test_grey_of_16_bits_in_video_is_as_in_pictures(tmp_path):
    """A PGM goes through FFmpeg, whose scaler may round the other way."""
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 3 2 65535\n" + VALUES.astype(">u2").tobytes())
    found = load_clip(path, frames=1).frames[0, ..., 0].astype(int)
    assert np.abs(found - np.rint(VALUES / 257)).max() <= 1


def test_integers_beyond_16_bits_and_floats_are_scaled_by_their_range(tmp_path):
    Image.fromarray(VALUES.astype(np.int32)).save(tmp_path / "small.tiff")
    assert load_clip(tmp_path / "small.tiff", frames=1).frames[0, ..., 0].tolist() == [[0, 1, 4], [128, 254, 255]]
    Image.fromarray(np.array([[-100, 0], [100, 300_000]], np.int32)).save(tmp_path / "large.tiff")
    assert load_clip(tmp_path / "large.tiff", frames=1).frames[0, ..., 0].tolist() == [[0, 0], [0, 255]]
    Image.fromarray(np.array([[-1, 0], [1, np.nan]], np.float32)).save(tmp_path / "float.tiff")
    clip = load_clip(tmp_path / "float.tiff", frames=1)
    assert clip.frames[0, ..., 0].tolist() == [[0, 128], [255, 0]]
    assert "its grey values, -1 to 1, are spread over black to white" in clip.notes


def test_a_folder_of_floats_has_one_scale(tmp_path):
    for number, most in enumerate((1.0, 4.0)):
        Image.fromarray(np.array([[0, most]], np.float32)).save(tmp_path / f"{number}.tiff")
    clip = load_clip(tmp_path, frames=2)
    assert clip.frames[:, 0, :, 0].tolist() == [[0, 64], [0, 255]]


def test_warnings_of_pillow_do_not_reach_the_screen(tmp_path):
    """A palette with transparency in bytes, of which Pillow warns."""
    picture = Image.new("P", (8, 8))
    picture.putpalette([0, 0, 0, 255, 0, 0])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=b"\x00\x80")
    (tmp_path / "p.png").write_bytes(buffer.getvalue())
    words = ["clipact", "info", str(tmp_path / "p.png")]
    script = f"import sys; sys.argv = {words!r}; from clipact.cli.app import main; main()"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "transparency" not in done.stderr.lower()


@pytest.mark.parametrize("shape", [(3000, 40), (40, 3000), (17, 900), (600, 33)])
def test_of_a_long_frame_only_what_the_crop_keeps_is_resized(shape, monkeypatch):
    down, across = np.mgrid[0 : shape[0], 0 : shape[1]]
    frame = np.stack([down % 256, across % 256, (down + across) % 256], -1).astype(np.uint8) // 2 + 50
    spec = ClipSpec(size=(32, 32))
    found = fit_crops(frame, spec, ("start", "centre", "end"))
    monkeypatch.setattr("clipact.video.transforms._MOST_RESIZED", 10**9)
    whole = fit_crops(frame, spec, ("start", "centre", "end"))
    for one, other in zip(found, whole, strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 2


def test_a_frame_of_one_pixel_by_thousands_is_not_blown_up():
    (found,) = fit_crops(np.full((8000, 1, 3), 7, np.uint8), ClipSpec(size=(224, 224)), ("centre",))
    assert found.shape == (224, 224, 3)
    assert (found == 7).all()
