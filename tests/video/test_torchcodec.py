"""torchcodec is used where it gives the right frames, from remuxed spans where they save work; else it is refused."""

import importlib.util
import io
import sys
import types
from itertools import pairwise

import av
import numpy as np
import pytest

from clipact.errors import UsageError
from clipact.video import decode_torchcodec
from clipact.video.clip import FramesDifferError
from clipact.video.decode_pyav import PyavVideo
from clipact.video.decode_torchcodec import (
    CannotRemuxError,
    TorchcodecVideo,
    can_remux,
    import_torchcodec,
    remux_spans,
)
from clipact.video.load import load_clip
from clipact.video.media import Media
from clipact.video.rgb import RgbConverter

from .corpus import ROTATIONS, draw, draw_edited, draw_rotated, need
from .drawing import draw_video, number_in


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return draw_video(tmp_path_factory.mktemp("video") / "numbers.mp4", frames=60)


@pytest.fixture
def torchcodec():
    need("torchcodec", importlib.util.find_spec("torchcodec") is not None)


def _media(path):
    return Media(f"file:{path}", name=str(path))


def _decoded(made):
    """The frames of a remuxed file in the order in which they are shown, and when that is."""
    with av.open(io.BytesIO(made.file)) as container:
        frames = [(float(frame.pts * frame.time_base), frame) for frame in container.decode(video=0)]
    assert [seconds for seconds, _ in frames] == sorted({seconds for seconds, _ in frames})
    return frames


@pytest.mark.parametrize("name", ["h264 short gop", "mpeg-ts with a start offset", "hevc", "hevc open gop", "flv"])
def test_a_remuxed_file_holds_the_frames_of_the_whole(name, tmp_path):
    path = draw(name, tmp_path)
    media = _media(path)
    timeline = PyavVideo(media).timeline()
    wanted = list(range(3, len(timeline), 7))
    made = list(remux_spans(media, timeline, wanted))
    assert [frame.index for one in made for frame in one.frames] == wanted
    whole = dict(PyavVideo(media).decode(timeline, wanted))
    rgb = RgbConverter(name)
    for one in made:
        with av.open(io.BytesIO(one.file)) as container:
            stamps = [(packet.dts, packet.pts) for packet in container.demux(video=0) if packet.size]
        assert all(early[0] < late[0] for early, late in pairwise(stamps))
        assert all(shown >= decoded for decoded, shown in stamps)
        places = {seconds: place for place, seconds in enumerate(sorted(shown for _, shown in stamps))}
        found = {round(seconds): frame for seconds, frame in _decoded(one)}
        for frame in one.frames:
            assert places[round(frame.seconds)] == frame.place
            picture = rgb.convert(found[round(frame.seconds)])
            assert np.array_equal(picture, whole[frame.index])
    media.close()


def test_a_remuxed_file_leaves_out_what_is_not_needed(video):
    media = _media(video)
    (made,) = remux_spans(media, PyavVideo(media).timeline(), [13])
    with av.open(io.BytesIO(made.file)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert len(packets) <= 4  # key frame 12, and what 13 hangs on
    assert [number_in(frame.to_ndarray(format="rgb24")) for _, frame in _decoded(made)][made.frames[0].place] == 13
    media.close()


def test_several_remuxed_files_give_what_one_gives(video, torchcodec, monkeypatch):
    expected = load_clip(video, frames=12)
    for held_bytes in (decode_torchcodec._REMUX_BYTES, 1):
        monkeypatch.setattr(decode_torchcodec, "_REMUX_BYTES", held_bytes)
        media = _media(video)
        made = list(remux_spans(media, PyavVideo(media).timeline(), [s.index for s in expected.stamps]))
        media.close()
        assert (len(made) > 1) == (held_bytes == 1)
        clip = load_clip(video, frames=12, decoder="torchcodec")
        assert (clip.decoder, clip.notes) == ("torchcodec", ())
        assert np.array_equal(clip.frames, expected.frames)


@pytest.mark.parametrize("reason", ["_SPAN_BYTES", "_REFUSED by the muxer"])
def test_what_cannot_be_remuxed_is_read_from_the_file(video, torchcodec, monkeypatch, reason):
    if reason == "_SPAN_BYTES":
        monkeypatch.setattr(decode_torchcodec, "_SPAN_BYTES", 1)
    else:
        monkeypatch.setattr(decode_torchcodec._Writer, "add", _refuse)
    clip = load_clip(video, frames=12, decoder="torchcodec")
    assert (clip.decoder, clip.notes) == ("torchcodec", ())
    assert np.array_equal(clip.frames, load_clip(video, frames=12).frames)


def _refuse(*_):
    raise CannotRemuxError


def test_a_muxer_that_refuses_cannot_remux(video, monkeypatch):
    def refuse(*_, **__):
        raise av.error.InvalidDataError(1, "no place for it")

    media = _media(video)
    timeline = PyavVideo(media).timeline()
    monkeypatch.setattr(decode_torchcodec.av, "open", refuse)
    with pytest.raises(CannotRemuxError):
        list(remux_spans(media, timeline, [5]))
    media.close()


def test_a_file_that_shrinks_between_the_two_reads(video, tmp_path):
    path = tmp_path / "shrinking.mkv"
    whole = draw_video(path, frames=60).read_bytes()
    media = _media(path)
    timeline = PyavVideo(media).timeline()
    path.write_bytes(whole[: len(whole) // 2])
    media.rewind()
    assert can_remux(media)
    with pytest.raises(FramesDifferError):
        list(remux_spans(media, timeline, [5, 55]))
    media.close()


@pytest.mark.parametrize("kind", ["edit list", *ROTATIONS, "file object", "bytes"])
def test_other_doors_give_the_same_by_torchcodec(kind, video, torchcodec, tmp_path):
    if kind == "edit list":
        source = draw_edited(tmp_path)
    else:
        source = draw_rotated(tmp_path, ROTATIONS[kind]) if kind in ROTATIONS else video.read_bytes()
    other = io.BytesIO(source) if kind == "file object" else source
    clip = load_clip(other, frames=6, decoder="torchcodec")
    assert np.array_equal(clip.frames, load_clip(source, frames=6).frames)
    assert clip.decoder == ("pyav" if kind == "mirrored" else "torchcodec")
    if kind == "mirrored":
        assert any("torchcodec was not used: its frames are shown mirrored" in note for note in clip.notes)


def test_an_address_is_never_left_to_torchcodec(tmp_path, torchcodec):
    """It has no time limit there: what cannot be remuxed is PyAV's."""
    path = draw_video(tmp_path / "a.mp4", codec="mpeg4", b_frames=0)
    media = Media(f"file:{path}", name="http://host/a.mp4", timeout=5.0)
    video = TorchcodecVideo(media)
    with pytest.raises(FramesDifferError, match="address"):
        list(video.decode(video.timeline(), [0]))
    media.close()


def _modules(monkeypatch, version, decoders=None):
    package = types.ModuleType("torchcodec")
    package.__version__ = version
    package.decoders = decoders
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)


def test_torchcodec_that_is_missing_or_old_or_without_ffmpeg(video, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(UsageError, match="pip install torchcodec"):
        load_clip(video, decoder="torchcodec")

    decoders = types.ModuleType("torchcodec.decoders")
    decoders.VideoDecoder = object
    _modules(monkeypatch, "0.10.1+cpu", decoders)
    with pytest.raises(UsageError, match=r"torchcodec 0\.10\.1\+cpu .*torchcodec>=0\.11"):
        load_clip(video, decoder="torchcodec")
    _modules(monkeypatch, "0.11.0+cpu", decoders)
    assert import_torchcodec() is object

    def no_libraries(name):
        raise RuntimeError("Could not load libtorchcodec")

    broken = types.ModuleType("torchcodec.decoders")
    broken.__getattr__ = no_libraries
    _modules(monkeypatch, "0.17.0", broken)
    with pytest.raises(UsageError, match="cannot load FFmpeg's shared libraries; install FFmpeg"):
        load_clip(video, decoder="torchcodec")
