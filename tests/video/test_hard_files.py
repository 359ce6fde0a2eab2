"""Files that are broken, lie about themselves or mean harm give what can be had of them, or a VideoError."""

import errno
import importlib.util
import io
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from clipact.clip_spec import ClipSpec
from clipact.errors import ClipactError, VideoError
from clipact.video import rgb
from clipact.video.clip import Clip
from clipact.video.load import load_clip
from clipact.video.rgb import RgbConverter

from .corpus import draw, ffmpeg, need
from .drawing import draw_video, number_in, numbered_picture

SPEC = ClipSpec(frames=4, size=(32, 32))


def _answer(path, **options):
    """The clip, or the error that stands for it, which must name the file; anything else fails the test."""
    try:
        return load_clip(path, **options)
    except ClipactError as error:
        return error if str(path) in str(error) else pytest.fail(f"{error!r} does not name {path}")


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    return draw_video(tmp_path_factory.mktemp("video") / "numbers.mp4")


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi", "flv"])
def test_cut_anywhere(tmp_path, ending):
    drawn = draw_video(tmp_path / f"drawn.{ending}", frames=30, b_frames=0)
    path = tmp_path / f"whole.{ending}"
    ffmpeg(f"-i {{}} -c copy {'-movflags +faststart' if ending == 'mp4' else ''} {{}}", drawn, path)
    whole = path.read_bytes()
    assert not any("cut short" in note for note in load_clip(path).notes)
    cut = tmp_path / f"cut.{ending}"
    answers = set()
    for length in range(1, len(whole), len(whole) // 25):
        cut.write_bytes(whole[:length])
        answer = _answer(cut, frames=30)
        answers.add(type(answer))
        if isinstance(answer, VideoError):
            continue
        there = {stamp.index for stamp in answer.stamps}
        assert there == set(range(len(there)))
        last = len(there) - 1  # which may be cut itself
        assert all(number_in(f) == s.index for f, s in zip(answer.frames, answer.stamps, strict=True) if s.index < last)
        if len(there) < 27 and ending != "ts":  # the only one of them that does not say how long it is
            assert any("cut short" in note for note in answer.notes), (length, len(there))
    assert answers == {Clip, VideoError}


def test_noise(tmp_path):
    path = tmp_path / "noise.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(20_000))
    with pytest.raises(VideoError, match="not a video"):
        load_clip(path)


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.txt", "a", "a.jpg"])
def test_the_name_does_not_matter(tmp_path, video, name):
    path = tmp_path / name
    path.write_bytes(video.read_bytes())
    assert len(load_clip(path)) == 8


@pytest.mark.parametrize(
    "name", ["notes.txt", "page.html", "art.ans", "list.m3u8", "names.csv", "song.lrc", "talk.srt"]
)
def test_text_is_no_video_whatever_it_is_called(tmp_path, name):
    path = tmp_path / name
    path.write_text("#EXTM3U\n1\n00:00:01,000 --> 00:00:02,000\nwords, words\n\n" * 40)
    with pytest.raises(VideoError):
        load_clip(path)


def test_metadata_that_is_not_utf8(tmp_path):
    path = draw_video(tmp_path / "titled.avi", codec="mpeg4", b_frames=0)
    titled = tmp_path / "latin.avi"
    ffmpeg("-i {} -c copy -metadata title=XXXXXXXX {}", path, titled)
    raw = titled.read_bytes()
    assert b"XXXXXXXX" in raw
    titled.write_bytes(raw.replace(b"XXXXXXXX", b"\xe9\xff\xfe\x80\xc3\x28\xa0\xa1"))
    assert np.array_equal(load_clip(titled).frames, load_clip(path).frames)


def _patched(path, box, offset, layout, *values):
    """Overwrite fields of the first such box of an MP4 file."""
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, data.index(box) + 4 + offset, *values)
    path.write_bytes(data)
    return path


def test_a_time_base_of_zero(tmp_path, video):
    path = tmp_path / "zero.mp4"
    path.write_bytes(video.read_bytes())
    _patched(path, b"mdhd", 12, ">I", 0)
    answer = _answer(path)
    if isinstance(answer, VideoError):
        assert "time base" in answer.cause
    else:
        assert np.isfinite([stamp.seconds for stamp in answer.stamps]).all()


def test_time_that_runs_back(tmp_path):
    """Two recordings in one MPEG-TS, the second with the first one's clock."""
    first = draw_video(tmp_path / "first.ts", frames=20, b_frames=0)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() * 2)
    clip = load_clip(joined, frames=40)
    assert [stamp.index for stamp in clip.stamps] == list(range(40))
    assert [number_in(frame) for frame in clip.frames] == [*range(20), *range(20)]
    seconds = [stamp.seconds for stamp in clip.stamps]
    assert seconds == sorted(set(seconds))
    assert any("runs back" in note for note in clip.notes)


def test_frames_that_change_size(tmp_path):
    parts = []
    for size in ("96x64", "64x96"):
        part = tmp_path / f"{size}.ts"
        ffmpeg(f"-f lavfi -i testsrc2=size={size}:rate=10:duration=1 -c:v libx264 -pix_fmt yuv420p {{}}", part)
        parts.append(part.read_bytes())
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(parts))
    assert load_clip(joined, spec=SPEC).frames.shape == (4, 32, 32, 3)
    with pytest.raises(VideoError, match="change size, from 96 x 64 to 64 x 96"):
        load_clip(joined)


def test_a_frame_without_data_in_the_middle(tmp_path, video):
    """Bytes of the middle overwritten: what decodes is used, and no frame is taken for another."""
    path = tmp_path / "hurt.mkv"
    data = bytearray(draw_video(tmp_path / "whole.mkv", frames=40, gop=10).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 1500] = bytes(1500)
    path.write_bytes(data)
    clip = load_clip(path, frames=30)
    right = [number_in(frame) == stamp.index for stamp, frame in zip(clip.stamps, clip.frames, strict=True)]
    assert sum(right) >= 15
    assert any("of 30 frames are damaged" in note for note in clip.notes)


@pytest.mark.parametrize("decoder", ["pyav", "torchcodec"])
def test_a_hole_in_an_mpeg_ts_is_told(tmp_path, decoder):
    if decoder == "torchcodec":
        need("torchcodec", importlib.util.find_spec("torchcodec") is not None)
    data = bytearray(draw_video(tmp_path / "whole.ts", frames=40, gop=10).read_bytes())
    hole = len(data) // 2
    data[hole : hole + 1500] = bytes(1500)
    path = tmp_path / "hurt.ts"
    path.write_bytes(data)
    assert any("packets came damaged" in note for note in load_clip(path, frames=30, decoder=decoder).notes)
    assert load_clip(tmp_path / "whole.ts", frames=30, decoder=decoder).notes == ()


def _peak_megabytes(path, *, options=""):
    """Peak memory of a new process that loads the file, and what it answered."""
    code = f"""
        import re, sys
        from clipact.clip_spec import ClipSpec
        from clipact.errors import ClipactError
        from clipact.video.load import load_clip
        try:
            answer = str(load_clip(sys.argv[1], spec=ClipSpec(size=(32, 32)){options}).frames.shape)
        except ClipactError as error:
            answer = str(error)
        print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
        print(answer)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    megabytes, answer = done.stdout.split("\n", 1)
    return int(megabytes), answer, done.stderr


def _annex_b(kind, *fields):
    """A NAL unit of H.264 from (value, bits) fields, exp-Golomb where bits is None (ITU-T H.264, 7.3 and 9.1)."""
    bits = ""
    for value, width in fields:
        if width is None:
            number = f"{value + 1:b}"
            bits += "0" * (len(number) - 1) + number
        else:
            bits += f"{value:0{width}b}"
    bits += "1"
    bits += "0" * (-len(bits) % 8)
    return b"\0\0\0\1" + bytes([kind]) + int(bits, 2).to_bytes(len(bits) // 8, "big")


def _huge_h264():
    golomb = None
    sequence = [(66, 8), (0, 8), (62, 8), (0, golomb), (0, golomb), (2, golomb), (16, golomb), (0, 1)]
    sequence += [(999, golomb), (999, golomb), (1, 1), (1, 1), (0, 1), (0, 1)]  # 1000 x 1000 blocks of 16 pixels
    picture = [(0, golomb), (0, golomb), (0, 1), (0, 1), (0, golomb), (15, golomb), (0, golomb), (0, 1), (0, 2)]
    picture += [(0, golomb), (0, golomb), (0, golomb), (0, 1), (0, 1), (0, 1)]
    slices = [(0, golomb), (7, golomb), (0, golomb), (0, 4), (0, golomb), (0, 1), (0, 1), (0, golomb)]
    units = [_annex_b(0x67, *sequence), _annex_b(0x68, *picture)]
    return b"".join(units + [_annex_b(0x65, *slices) + bytes(range(1, 200))] * 20)


def _huge_jpegs(folder):
    ffmpeg("-f lavfi -i testsrc2=size=64x64:rate=5:duration=2 -c:v mjpeg {}", folder / "small.avi")
    data = bytearray((folder / "small.avi").read_bytes())
    place = data.find(b"\xff\xc0")
    while place >= 0:
        struct.pack_into(">HH", data, place + 5, 16000, 16000)
        place = data.find(b"\xff\xc0", place + 1)
    return bytes(data)


def _huge_png():
    header = b"IHDR" + struct.pack(">IIBBBBB", 16000, 16000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _huge_gif():
    return b"GIF89a" + struct.pack("<HHBBB", 16000, 16000, 0x80, 0, 0) + bytes(6) + b",\0\0\0\0\0\x40\0\x40\0\2\2L\1\0;"


def _mpeg_ts(data):
    """The bytes of an H.264 stream in MPEG-TS."""
    packets = data.split(b"\0\0\0\1\x65")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        frame = av.VideoFrame.from_ndarray(numbered_picture(0), format="rgb24")
        container.start_encoding()
        del frame
        for number, slices in enumerate(packets[1:]):
            packet = av.Packet((packets[0] if not number else b"") + b"\0\0\0\1\x65" + slices)
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, number, number, True
            packet.time_base = Fraction(1, 10)
            container.mux(packet)
    return buffer.getvalue()


def test_frames_that_grow_to_16k_half_way(tmp_path):
    """Small frames, and then a header of 16k: what is small is used, what is not is never decoded."""
    small = draw_video(tmp_path / "small.ts", frames=20, b_frames=0).read_bytes()
    path = tmp_path / "growing.ts"
    path.write_bytes(small + _mpeg_ts(_huge_h264()))
    megabytes, answer, noise = _peak_megabytes(path)
    assert megabytes < 600, answer
    assert answer.startswith("(8, 32, 32, 3)")
    assert noise == ""


@pytest.mark.parametrize("kind", ["h264", "mpeg-ts", "mjpeg", "png", "gif"])
def test_a_header_of_16k_by_16k_is_refused_before_it_is_decoded(tmp_path, kind):
    made = {
        "h264": _huge_h264,
        "mpeg-ts": lambda: _mpeg_ts(_huge_h264()),
        "png": _huge_png,
        "gif": _huge_gif,
        "mjpeg": lambda: _huge_jpegs(tmp_path),
    }
    path = tmp_path / f"huge.{kind}"
    path.write_bytes(made[kind]())
    megabytes, answer, noise = _peak_megabytes(path)
    assert megabytes < 1000
    assert "megapixels" in answer or (kind in ("mjpeg", "mpeg-ts") and "not one frame" in answer)
    assert noise == ""


def test_an_hour_in_a_few_bytes(tmp_path):
    """Two frames, ten hours apart."""
    path = tmp_path / "long.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number, pts in enumerate((0, 360_000)):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    clip = load_clip(path, frames=2)
    assert [number_in(frame) for frame in clip.frames] == [0, 1]
    assert clip.stamps[1].seconds == pytest.approx(36_000)
    assert number_in(load_clip(path, 100.0, 200.0, frames=1).frames[0]) == 0


@pytest.mark.parametrize("count", [2**20, 2**27, 2**31 - 1, 2**32 - 1])
def test_an_mp4_that_promises_more_frames_than_it_has_bytes(tmp_path, video, count):
    path = tmp_path / "bomb.mp4"
    path.write_bytes(video.read_bytes())
    data = path.read_bytes()
    _patched(path, b"stts", 8, ">I", count)
    place = data.index(b"stsz")
    data = bytearray(path.read_bytes())
    struct.pack_into(">II", data, place + 8, 1, count)  # every sample is 1 byte, and there are so many
    path.write_bytes(data)
    megabytes, answer, _ = _peak_megabytes(path)
    assert megabytes < 1000, answer


def test_a_time_limit_ends_what_hangs():
    """A server that says nothing keeps one waiting for ten seconds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/a.mp4"
        with pytest.raises(VideoError, match=r"not decoded within 1\.5 seconds") as raised:
            load_clip(address, time_limit_seconds=1.5)
        assert raised.value.path == address


def test_a_named_pipe_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match="a pipe or a device"):
        load_clip(tmp_path / "pipe.mp4")


def test_a_process_of_its_own_gives_the_same_and_the_same_errors(video, tmp_path):
    alone = load_clip(video, 1.0, spec=SPEC, time_limit_seconds=60.0)
    assert np.array_equal(alone.frames, load_clip(video, 1.0, spec=SPEC).frames)
    assert alone.stamps == load_clip(video, 1.0, spec=SPEC).stamps
    with pytest.raises(VideoError, match="no such file"):
        load_clip(tmp_path / "missing.mp4", time_limit_seconds=60.0)


def test_a_process_of_its_own_reads_what_the_normal_door_reads(video):
    """File objects from their beginning and under their name; pipes under the limit; a generator is drawn from."""
    expected = load_clip(video, frames=4, generator=np.random.default_rng(1))
    generator, here = np.random.default_rng(1), np.random.default_rng(1)
    load_clip(video, frames=4, generator=here)
    with video.open("rb") as file:
        file.seek(1000)
        alone = load_clip(file, frames=4, generator=generator, time_limit_seconds=60.0)
    assert alone.stamps == expected.stamps
    assert alone.source == str(video)
    assert generator.random() == here.random()
    with subprocess.Popen(["cat", str(video)], stdout=subprocess.PIPE) as writer:
        assert np.array_equal(
            load_clip(writer.stdout, spec=SPEC, time_limit_seconds=60.0).frames, load_clip(video, spec=SPEC).frames
        )
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as silent, pytest.raises(VideoError, match="not decoded within 1 seconds"):
        load_clip(silent, time_limit_seconds=1.0)
    os.close(writing)


def test_standard_input_under_a_time_limit(video):
    code = "from clipact.video.load import load_clip; print(load_clip('-', frames=3, time_limit_seconds=60).source)"
    with video.open("rb") as file:
        done = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True, text=True, check=True)
    assert done.stdout == "standard input\n"


def test_memory_that_is_not_enough_is_an_error_that_names_the_file(tmp_path):
    """Sixty frames of a large picture are more than the process may have."""
    path = tmp_path / "large.png"
    Image.new("1", (6000, 5500)).save(path)
    with pytest.raises(VideoError, match="more memory") as raised:
        load_clip(path.read_bytes(), frames=60, time_limit_seconds=60.0)
    assert raised.value.path == f"{path.stat().st_size} bytes"


def test_a_decoder_that_crashes_is_an_error(video, monkeypatch):
    from clipact.video import decode_subprocess as isolate

    killer = f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})"
    popen = subprocess.Popen
    monkeypatch.setattr(isolate.subprocess, "Popen", lambda _, **rest: popen([sys.executable, "-c", killer], **rest))
    with pytest.raises(VideoError, match="crashed"):
        load_clip(video, time_limit_seconds=60.0)


def test_nothing_is_printed_about_broken_files(tmp_path):
    whole = draw("h264 short gop", tmp_path).read_bytes()
    path = tmp_path / "cut.mp4"
    for data in (whole[: len(whole) // 2], whole[:100] + bytes(300) + whole[400:], b"junk" * 99):
        path.write_bytes(data)
        assert _peak_megabytes(path)[2] == ""


def test_every_error_is_one_of_ours(tmp_path, video):
    path = tmp_path / "spoilt.mp4"
    whole = video.read_bytes()
    generator = np.random.default_rng(5)
    for _ in range(60):
        data = bytearray(whole)
        for place in generator.integers(len(data), size=30):
            data[place] = generator.integers(256)
        path.write_bytes(data)
        assert isinstance(_answer(path, spec=SPEC), Clip | ClipactError)


def test_colours_that_cannot_be_turned_into_rgb(monkeypatch):
    """A damaged header may declare pixels to which FFmpeg's scaler has no way."""

    def refuse(frame):
        raise av.error.FFmpegError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(rgb, "_rgb_graph", refuse)
    with pytest.raises(VideoError, match=r"odd\.avi: its colours, yuv420p"):
        RgbConverter("odd.avi").convert(av.VideoFrame(32, 32, "yuv420p"))
