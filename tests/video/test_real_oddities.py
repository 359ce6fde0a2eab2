"""Files as cameras, editors and broken-off recordings leave them: decoded as the ffmpeg command does, or named."""

import importlib.util
import struct
from contextlib import closing
from fractions import Fraction
from io import BytesIO

import av
import numpy as np
import pytest
from PIL import Image

from clipact.errors import VideoError
from clipact.video.decode_pyav import PyavVideo
from clipact.video.decode_sequential import SequentialVideo
from clipact.video.inspect import inspect
from clipact.video.load import load_clip
from clipact.video.media import Media

from .corpus import decode_with_ffmpeg, ffmpeg, need
from .drawing import draw_video, number_in, numbered_picture

DECODERS = ("pyav", "torchcodec")
_PICTURES = "-f lavfi -i testsrc2=size=64x48:rate=10:duration={}"


@pytest.fixture(params=DECODERS)
def decoder(request):
    if request.param == "torchcodec":
        need("torchcodec", importlib.util.find_spec("torchcodec") is not None)
    return request.param


def _drawn(path, options, *, seconds=4):
    ffmpeg(f"{_PICTURES.format(seconds)} {options} {{}}", path)
    return path


def _cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def _as_ffmpeg(path, decoder, *, starts=(0.0, 1.0, 1.7)):
    """Every frame, and single ones from the middle, are those of the ffmpeg command; the notes."""
    expected, _ = decode_with_ffmpeg(path)
    assert inspect(path).frames == len(expected)
    every = load_clip(path, frames=len(expected), decoder=decoder)
    assert [stamp.index for stamp in every.stamps] == list(range(len(expected)))
    assert np.array_equal(every.frames, expected)
    for start in starts:
        (frame,), (stamp,) = (clip := load_clip(path, start, frames=1, decoder=decoder)).frames, clip.stamps
        assert np.array_equal(frame, expected[stamp.index]), stamp
        assert stamp.seconds == every.stamps[stamp.index].seconds
    return every.notes


def _jpegs(*, orientation, frames=4):
    """A stream of JPEGs with EXIF, as cameras write it; white on the left."""
    stream = BytesIO()
    for number in range(frames):
        picture = np.full((48, 64, 3), 20 * number, np.uint8)
        picture[:, :32] = 255
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(picture).save(stream, "JPEG", exif=exif, quality=95)
    return stream.getvalue()


@pytest.mark.parametrize("ending", ["avi", "mov", "mkv"])
@pytest.mark.parametrize(("orientation", "white"), [(1, "left"), (3, "right"), (6, "top"), (4, "left")])
def test_frames_with_exif_are_turned(tmp_path, ending, orientation, white, decoder):
    """PyAV's enumeration of side data has no EXIF: it refused to read any other from the same frame."""
    stream, path = tmp_path / "x.mjpeg", tmp_path / f"x.{ending}"
    stream.write_bytes(_jpegs(orientation=orientation))
    ffmpeg("-f mjpeg -i {} -c copy {}", stream, path)
    clip = load_clip(path, frames=4, decoder=decoder)
    height, width = (64, 48) if orientation == 6 else (48, 64)
    assert clip.frames.shape == (4, height, width, 3)
    half = {
        "left": clip.frames[:, :, : width // 2 - 8],
        "right": clip.frames[:, :, width // 2 + 8 :],
        "top": clip.frames[:, : height // 2 - 8],
    }
    assert (half[white] > 220).all()
    assert not any("cut short" in note for note in clip.notes)


def test_no_exception_of_a_decoder_leaves_its_file(tmp_path, monkeypatch):
    path = draw_video(tmp_path / "a.mp4", frames=5)

    def fail(*_):
        raise OverflowError("31 is not a valid Type")

    def fail_later(*_):
        fail()
        yield

    for method, failure in (("timeline", fail), ("decode", fail_later)):
        with monkeypatch.context() as patched:
            patched.setattr(PyavVideo, method, failure)
            with pytest.raises(VideoError, match=r"a\.mp4: its decoder failed \(OverflowError: 31"):
                load_clip(path)
    with monkeypatch.context() as patched:
        patched.setattr(PyavVideo, "timeline", fail)
        with pytest.raises(VideoError, match="its decoder failed"):
            inspect(path)


@pytest.mark.parametrize(
    ("name", "codec"), [("raw.avi", "rawvideo"), ("raw.mov", "rawvideo"), ("smc.mov", "smc"), ("qtrle.mov", "qtrle")]
)
def test_a_palette_that_is_sent_once(tmp_path, name, codec, decoder):
    path = _drawn(tmp_path / name, f"-c:v {codec} -pix_fmt pal8", seconds=2)
    assert _as_ffmpeg(path, decoder, starts=(0.0, 1.2))[:-1] == ()


def test_settings_of_the_decoder_that_change_half_way(tmp_path, decoder):
    """Two recordings in one FLV: the second's settings are sent apart from its frames, once."""
    drawn, data = draw_video(tmp_path / "v.mp4", frames=20, b_frames=0), []
    for number, options in enumerate(("-profile:v baseline -refs 1", "-profile:v high -refs 4 -output_ts_offset 2")):
        part = tmp_path / f"{number}.flv"
        ffmpeg(f"-i {{}} -c:v libx264 -bf 0 -g 5 -pix_fmt yuv420p {options} {{}}", drawn, part)
        data.append(part.read_bytes()[13 * number :])  # after the header of the file
    joined = tmp_path / "joined.flv"
    joined.write_bytes(b"".join(data))
    clip = load_clip(joined, frames=40, decoder=decoder)
    assert [number_in(frame) for frame in clip.frames] == [*range(20), *range(20)]
    for start in (3.3, 2.5):
        clip = load_clip(joined, start, frames=1, decoder=decoder)
        assert number_in(clip.frames[0]) == clip.stamps[0].index - 20
    with av.open(str(joined)) as container:
        sent = [p for p in container.demux(container.streams.video[0]) if p.has_sidedata("new_extradata")]
    assert len(sent) >= 1


@pytest.mark.parametrize("codec", ["msmpeg4v2", "wmv2", "cinepak", "msvideo1"])
def test_key_frames_of_an_avi_without_an_index(tmp_path, codec, decoder):
    path = _cut(_drawn(tmp_path / "x.avi", f"-c:v {codec} -g 50", seconds=8), 0.7)
    expected, _ = decode_with_ffmpeg(path)
    for start in (1.0, 3.3, 4.1):
        clip = load_clip(path, start, frames=1, decoder=decoder)
        assert np.array_equal(clip.frames[0], expected[clip.stamps[0].index])
        assert any("cut short" in note for note in clip.notes)


@pytest.mark.parametrize("codec", ["mpeg4", "libx264", "libvpx-vp9"])
def test_a_container_that_calls_every_frame_a_key_frame(tmp_path, codec):
    path = tmp_path / "keys.mkv"
    with av.open(str(draw_video(tmp_path / "x.mkv", codec=codec, b_frames=0, gop=30))) as source:
        video = source.streams.video[0]
        with av.open(str(path), "w") as out:
            stream = out.add_stream_from_template(video, opaque=True)
            for packet in source.demux(video):
                if packet.size:
                    packet.is_keyframe, packet.stream = True, stream
                    out.mux(packet)
    for start in (1.5, 2.3):
        clip = load_clip(path, start, frames=1)
        assert number_in(clip.frames[0]) == clip.stamps[0].index


@pytest.mark.parametrize("ending", ["mkv", "flv", "ts", "mp4"])
def test_b_frames_whose_stamps_say_when_they_are_decoded(tmp_path, ending, decoder):
    path, whole = tmp_path / f"x.{ending}", tmp_path / "whole.mp4"
    _drawn(whole, "-c:v libx264 -bf 3 -g 12 -pix_fmt yuv420p")
    ffmpeg("-i {} -c copy -bsf:v setts=pts=DTS:dts=DTS {}", whole, path)
    _as_ffmpeg(path, decoder)


@pytest.mark.parametrize(("codec", "gop"), [("libx264", 50), ("mpeg2video", 25)])
def test_a_stream_that_begins_between_key_frames(tmp_path, codec, gop, decoder):
    """With a start and without, seconds count from the first frame that can be decoded."""
    path = _drawn(tmp_path / "x.ts", f"-c:v {codec} -bf 2 -g {gop} -pix_fmt yuv420p -b:v 300k", seconds=12)
    data = path.read_bytes()
    path.write_bytes(data[len(data) // 9 // 188 * 188 :])
    notes = _as_ffmpeg(path, decoder, starts=(0.0, 2.0, 3.1))
    assert any("begins between key frames: its first" in note for note in notes)


def test_video_goes_on_where_its_sound_is_missing(tmp_path, decoder):
    """All sound but its first chunk is said to lie where the file has ended."""
    video, path = draw_video(tmp_path / "v.mp4"), tmp_path / "x.mov"
    ffmpeg("-i {} -f lavfi -i sine=d=4 -c:v copy -c:a aac {}", video, path)
    data = bytearray(path.read_bytes())
    chunks = data.index(b"stco", data.index(b"smhd")) + 8
    (count,) = struct.unpack_from(">I", data, chunks)
    struct.pack_into(f">{count - 1}I", data, chunks + 8, *[0x7FFF0000] * (count - 1))
    path.write_bytes(data)
    clip = load_clip(path, frames=40, decoder=decoder)
    assert [number_in(frame) for frame in clip.frames] == list(range(40))
    assert clip.notes == ()


@pytest.mark.parametrize("options", ["-c copy -output_ts_offset 5", "-f lavfi -i sine=d=4 -c:v copy -c:a aac"])
def test_a_matroska_clock_that_starts_late_is_not_cut_short(tmp_path, options):
    video, path = draw_video(tmp_path / "v.mp4"), tmp_path / "x.mkv"
    if "sine" in options:
        ffmpeg("-itsoffset 0.9 -i {} -f lavfi -i sine=d=4 -c:v copy -c:a aac {}", video, path)
    else:
        ffmpeg(f"-i {{}} {options} {{}}", video, path)
    clip = load_clip(path)
    assert clip.notes == ()
    assert clip.duration_seconds == pytest.approx(4.0)
    assert any("cut short" in note for note in load_clip(_cut(path, 0.5)).notes)


def test_frames_that_an_avi_drops_are_not_missing(tmp_path):
    path = tmp_path / "x.avi"
    ffmpeg("-i {} -c:v mpeg4 -output_ts_offset 3 {}", draw_video(tmp_path / "v.mp4"), path)
    notes = load_clip(path).notes  # its first frame is on show for three seconds
    assert notes[0].startswith("variable frame rate")
    assert not any("cut short" in note for note in notes)


def test_an_orientation_of_single_frames_turns_none(tmp_path, decoder):
    plain, path = draw_video(tmp_path / "v.mp4"), tmp_path / "x.mp4"
    ffmpeg("-i {} -c copy -bsf:v h264_metadata=display_orientation=insert:rotate=90 {}", plain, path)
    stored, clip = load_clip(plain, frames=40), load_clip(path, frames=40, decoder=decoder)
    assert np.array_equal(clip.frames, stored.frames)
    assert np.array_equal(load_clip(path, 1.9, 2.0, frames=1, decoder=decoder).frames[0], stored.frames[19])
    info = inspect(path)
    assert (info.width, info.height, info.rotation_degrees) == (96, 64, 0)
    assert "shown as stored" in str(info.odd)
    raw = tmp_path / "x.h264"
    ffmpeg("-i {} -c copy {}", path, raw)
    assert np.array_equal(load_clip(raw, frames=40).frames, stored.frames)


def test_lossless_444_of_an_old_x264(tmp_path, decoder):
    """Which build wrote it, and so how it is decoded, is told before the first frame only."""
    path = tmp_path / "x.mkv"
    lossless = "-c:v libx264 -bf 0 -x264-params keyint=10 -qp 0 -pix_fmt yuv444p"
    ffmpeg(f"-f lavfi -i testsrc2=size=96x64:rate=10:duration=3,noise=alls=10:allf=t {lossless} {{}}", path)
    data = path.read_bytes()
    build = data.index(b"x264 - core ") + len(b"x264 - core ")
    path.write_bytes(data[:build] + b"149" + data[build + 3 :])
    raw = ffmpeg("-threads 1 -i {} -f rawvideo -pix_fmt rgb24 -", path)
    expected = np.frombuffer(raw, np.uint8).reshape(-1, 64, 96, 3)
    clip = load_clip(path, 1.5, 1.6, frames=1, decoder=decoder)
    assert np.array_equal(clip.frames[0], expected[15])
    path.write_bytes(data)
    assert not np.array_equal(load_clip(path, 1.5, 1.6, frames=1).frames[0], expected[15])


@pytest.mark.parametrize(("ending", "codec"), [("h264", "libx264"), ("hevc", "libx265 -x265-params log-level=error")])
def test_a_raw_stream_has_the_rate_that_it_states(tmp_path, ending, codec):
    path = tmp_path / f"x.{ending}"
    ffmpeg(f"-f lavfi -i testsrc2=size=64x48:rate=30:duration=2 -c:v {codec} -pix_fmt yuv420p {{}}", path)
    clip = load_clip(path, frames=60)
    assert clip.duration_seconds == pytest.approx(2.0)
    assert clip.stamps[30].seconds == pytest.approx(1.0)
    assert clip.notes == ("it has no clock of its own: frames are timed by its rate, 30 frames a second",)
    assert inspect(path).rate_fps == pytest.approx(30)


def test_a_frame_an_hour(tmp_path):
    path = tmp_path / "slow.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 96, 64, "yuv420p", Fraction(1)
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            frame.pts, frame.time_base = 3600 * number, Fraction(1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert inspect(path).rate_fps == pytest.approx(3 / 7200, rel=0.01)


def test_packets_that_the_decoder_rejects_are_counted(tmp_path):
    """Three packets are overwritten: they give no frame, and those after them are predicted from others."""
    path = tmp_path / "x.mkv"
    drawn = _drawn(tmp_path / "v.mkv", "-c:v libx264 -bf 0 -x264-params keyint=40:scenecut=0 -pix_fmt yuv420p")
    with av.open(str(drawn)) as source:
        video = source.streams.video[0]
        with av.open(str(path), "w") as out:
            stream = out.add_stream_from_template(video, opaque=True)
            for number, packet in enumerate(p for p in source.demux(video) if p.size):
                data = b"\xff\xff\xff\xff" + bytes(60) if number in (10, 11, 12) else bytes(packet)
                copy = av.Packet(data)
                copy.stream, copy.time_base, copy.is_keyframe = stream, packet.time_base, packet.is_keyframe
                copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
                out.mux(copy)
    notes = load_clip(path, frames=30).notes
    assert "3 packets could not be decoded" in notes
    assert any("frames are damaged" in note for note in notes), notes
    with closing(SequentialVideo(Media(f"file:{path}", name="x.mkv"))) as video:
        timeline = video.timeline()
        shown = [number for number, _ in video.decode(timeline, range(len(timeline)))]
        assert list(video.damaged()) == [number for number in shown if number >= 10]


def test_encrypted_files_and_parts_of_streams_are_named(tmp_path):
    video = draw_video(tmp_path / "v.mp4")
    key = "00112233445566778899aabbccddeeff"
    locked = tmp_path / "locked.mp4"
    encryption = f"-encryption_scheme cenc-aes-ctr -encryption_key {key} -encryption_kid {key}"
    ffmpeg(f"-i {{}} -c copy {encryption} {{}}", video, locked)
    with pytest.raises(VideoError, match="encrypted"):
        load_clip(locked)
    names = "-init_seg_name init.m4s -media_seg_name seg$Number$.m4s"
    ffmpeg(f"-i {{}} -c copy -f dash {names} {{}}", video, tmp_path / "x.mpd")
    header, segment = tmp_path / "init.m4s", tmp_path / "seg1.m4s"
    for part, said in ((header, "initialisation segment of a DASH"), (segment, "media segment of a DASH")):
        with pytest.raises(VideoError, match=said):
            load_clip(part)
        with part.open("rb") as file, pytest.raises(VideoError, match=said):
            load_clip(file)
    whole = tmp_path / "whole.mp4"
    whole.write_bytes(header.read_bytes() + segment.read_bytes())
    assert len(load_clip(whole)) == 8


def test_a_music_file_with_a_cover_has_no_video(tmp_path):
    cover, path = tmp_path / "cover.jpg", tmp_path / "song.mp3"
    Image.new("RGB", (32, 32)).save(cover)
    ffmpeg(
        "-f lavfi -i sine=d=1 -i {} -map 0 -map 1 -c:a libmp3lame -c:v copy -disposition:v attached_pic {}", cover, path
    )
    with pytest.raises(VideoError, match="no video stream, only a cover picture and audio"):
        load_clip(path)
