"""Everything that may be named as a video comes through the same door."""

import errno
import http.server
import io
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipact.clip_spec import ClipSpec
from clipact.errors import UsageError, VideoError
from clipact.video.load import load_clip
from clipact.video.media import Media
from clipact.video.open_source import record
from clipact.video.sampling import segment_centers

from .drawing import draw_video, number_in, numbered_picture


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    return draw_video(tmp_path_factory.mktemp("video") / "numbers.mp4")


def _pictures(count):
    return [Image.fromarray(numbered_picture(number)) for number in range(count)]


def _numbers(clip):
    return [number_in(frame) for frame in clip.frames]


def test_an_array_and_a_picture_as_an_array():
    frames = np.stack([numbered_picture(number) for number in range(20)])
    clip = load_clip(frames, frames=4)
    assert np.array_equal(clip.frames, frames[segment_centers(20, 4)])
    assert clip.duration_seconds == 20 / 25
    assert "25 frames a second" in clip.notes[0]
    assert load_clip(frames[3], frames=1).frames.shape == (1, 64, 96, 3)
    with pytest.raises(UsageError, match="float64"):
        load_clip(frames / 255.0)
    with pytest.raises(UsageError, match="wanted uint8"):
        load_clip(frames[..., 0])


def test_bytes_and_file_objects(video):
    expected = load_clip(video)
    with video.open("rb") as file:
        for source in (video.read_bytes(), io.BytesIO(video.read_bytes()), file):
            clip = load_clip(source)
            assert np.array_equal(clip.frames, expected.frames)
            assert clip.stamps == expected.stamps
        assert load_clip(file).source == str(video)
    assert load_clip(video.read_bytes(), 1.0, 2.0, frames=2, decoder="pyav").stamps[0].index == 12
    with pytest.raises(VideoError, match="empty"):
        load_clip(b"")
    with pytest.raises(VideoError, match="not a video"):
        load_clip(b"words " * 100)


def test_standard_input(video):
    code = "from clipact.video.load import load_clip; print([s.index for s in load_clip('-').stamps])"
    with video.open("rb") as file:
        done = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(segment_centers(40, 8)))


@pytest.mark.parametrize("ending", ["png", "webp", "bmp", "gif", "tiff"])
def test_a_single_picture_is_a_clip_of_one_frame(tmp_path, ending):
    path = tmp_path / f"picture.{ending}"
    _pictures(6)[5].save(path, **({"lossless": True} if ending == "webp" else {}))
    clip = load_clip(path, frames=1)
    assert _numbers(clip) == [5]
    assert clip.decoder == "pillow"
    assert clip.duration_seconds is None
    assert load_clip(path.read_bytes(), spec=ClipSpec(frames=8, size=(32, 32))).frames.shape == (8, 32, 32, 3)


def test_a_picture_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter clockwise
    picture = Image.fromarray(numbered_picture(7))
    picture.save(tmp_path / "turned.png", exif=exif)
    shown = load_clip(tmp_path / "turned.png", frames=1).frames[0]
    assert np.array_equal(shown, np.rot90(np.asarray(picture), -1))


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_animated_pictures_keep_their_own_times(tmp_path, ending):
    path = tmp_path / f"moving.{ending}"
    lossless = {"lossless": True} if ending == "webp" else {}
    durations = [100, 50, 200, 100, 150]
    first, *others = _pictures(5)
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0, **lossless)
    clip = load_clip(path, frames=5)
    assert _numbers(clip) == [0, 1, 2, 3, 4]
    assert [stamp.seconds for stamp in clip.stamps] == [0.0, 0.1, 0.15, 0.35, 0.45]
    assert clip.duration_seconds == 0.6
    assert _numbers(load_clip(path, 0.3, frames=2)) == [3, 4]
    with pytest.raises(VideoError, match=r"0\.600 seconds"):
        load_clip(path, 0.6)


def test_a_folder_of_numbered_pictures(tmp_path):
    for number, picture in enumerate(_pictures(12)):
        picture.save(tmp_path / f"frame_{number}.png")  # 10 after 9, not after 1
    (tmp_path / "notes.txt").write_text("not a picture")
    clip = load_clip(tmp_path, frames=12)
    assert _numbers(clip) == list(range(12))
    assert _numbers(load_clip(tmp_path, 0.08, 0.2, frames=3)) == [2, 3, 4]
    (tmp_path / "frame_3.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    with pytest.raises(VideoError, match="frame_3"):
        load_clip(tmp_path, frames=12)


def test_a_folder_without_pictures(tmp_path):
    with pytest.raises(VideoError, match="folder without pictures"):
        load_clip(tmp_path)


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(folder):  # permissions do not bind root, which tests may run as
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(VideoError, match=f"{tmp_path}: the folder cannot be read: Permission denied"):
        load_clip(tmp_path)


def test_a_name_that_looks_like_a_protocol(tmp_path, video):
    path = tmp_path / "a:b%03d.mp4"
    path.write_bytes(video.read_bytes())
    assert _numbers(load_clip(path)) == segment_centers(40, 8)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(video):
    def handler(*args):
        return _Quiet(*args, directory=str(video.parent))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_http_address(server, video):
    clip = load_clip(f"{server}/{video.name}")
    assert np.array_equal(clip.frames, load_clip(video).frames)
    assert clip.source == f"{server}/{video.name}"
    with pytest.raises(VideoError, match="404"):
        load_clip(f"{server}/missing.mp4")


@pytest.fixture
def silent_port():
    """A server that lets one in and then says nothing, ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("protocol", ["rtsp", "http", "tcp"])
def test_an_address_that_says_nothing_does_not_hang(silent_port, protocol, monkeypatch):
    monkeypatch.setattr("clipact.video.open_source.PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr("clipact.video.open_source.PATIENCE_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(VideoError, match=r"nothing came|timed out|Input/output"):
        load_clip(f"{protocol}://127.0.0.1:{silent_port}/x", None, 1.0)
    assert time.monotonic() - began < 20


def test_a_live_stream_is_recorded_as_long_as_it_is_wanted(tmp_path):
    path = draw_video(tmp_path / "stream.ts", frames=80, gop=10, b_frames=0)

    def send():
        connection, _ = listener.accept()
        with connection:
            connection.sendall(path.read_bytes())
            stop.wait(20)  # the stream goes on, but nothing more comes yet

    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=send)
        thread.start()
        clip = load_clip(f"tcp://127.0.0.1:{listener.getsockname()[1]}", 1.0, 3.0, frames=20)
        stop.set()
        thread.join()
    assert _numbers(clip) == list(range(10, 30))


def test_a_live_stream_that_ends_half_way_says_so(tmp_path):
    data = draw_video(tmp_path / "stream.ts", frames=20, gop=10, b_frames=0).read_bytes()

    def send():
        connection, _ = listener.accept()
        with connection:
            connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=send)
        thread.start()
        clip = load_clip(f"tcp://127.0.0.1:{listener.getsockname()[1]}", 0.0, 5.0, frames=20)
        thread.join()
    assert _numbers(clip) == list(range(20))
    assert any(note.startswith("recorded 2.0 of 5 s: ") for note in clip.notes), clip.notes


def test_a_stream_that_cannot_be_recorded_is_an_error_of_ours(video, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("matroska has no place for it")

    opened = Media(f"file:{video}", name="tcp://host")
    monkeypatch.setattr("clipact.video.open_source.av.open", refuse)
    monkeypatch.setattr("clipact.video.open_source.Media", lambda *_, **__: opened)
    with pytest.raises(VideoError, match="cannot be recorded: matroska has no place for it"):
        record("tcp://host", 1.0)


def test_a_camera_is_opened_as_one(monkeypatch):
    seen = {}

    def refuse(place, mode, **options):
        seen.update(options, place=place)
        raise OSError("no camera")

    monkeypatch.setattr("clipact.video.media.av.open", refuse)
    with pytest.raises(OSError, match="no camera"):
        record("/dev/video97", 1.0)
    assert (seen["place"], seen["format"]) == ("/dev/video97", "v4l2")


def test_an_http_answer_that_breaks_off(tmp_path):
    """A server that promises a whole Matroska file and sends half of it."""
    data = draw_video(tmp_path / "whole.mkv", frames=80, gop=10, b_frames=0).read_bytes()

    class Half(_Quiet):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Half) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        clip = load_clip(f"http://127.0.0.1:{server.server_port}/half.mkv", frames=10)
        server.shutdown()
        thread.join()
    assert clip.stamps[-1].index < 60
    assert any("cut short" in note for note in clip.notes), clip.notes


def test_a_live_stream_needs_an_end():
    with pytest.raises(UsageError, match="--to"):
        load_clip("rtsp://127.0.0.1:9/x")


def test_a_camera_that_is_not_there():
    with pytest.raises(VideoError):
        load_clip("/dev/video97", None, 1.0)
