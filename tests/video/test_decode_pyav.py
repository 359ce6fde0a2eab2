"""Packets that no frame refers to, read from their headers: the same ones that FFmpeg itself leaves out."""

import av
import pytest

from clipact.video.slice_headers import is_unreferenced, nal_length_bytes

from .corpus import draw


def _packets(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        length = nal_length_bytes(stream.codec_context.name, stream.codec_context.extradata)
        yield from ((packet.pts, bytes(packet), length) for packet in container.demux(stream) if packet.size)


def _left_out_by_ffmpeg(path):
    def shown(skip):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.skip_frame = skip
            return {frame.pts for frame in container.decode(stream)}

    return shown("DEFAULT") - shown("NONREF")


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("h264 long gop and b-frames", "h264"),
        ("h264 open gop", "h264"),
        ("hevc", "hevc"),
        ("hevc open gop", "hevc"),
    ],
)
def test_the_headers_say_what_ffmpeg_finds(name, codec, tmp_path):
    path = draw(name, tmp_path)
    found = {stamp for stamp, data, length in _packets(path) if is_unreferenced(data, codec, length)}
    assert found == _left_out_by_ffmpeg(path)
    assert len(found) > 10


def test_what_the_headers_do_not_say_is_decoded(tmp_path):
    (_, data, length), *_ = _packets(draw("mpeg-ts with a start offset", tmp_path))
    assert length == 0
    assert not is_unreferenced(data, "h264", length)
    assert not is_unreferenced(data, "mpeg4", 4)
    assert (nal_length_bytes("h264", b"\x01\x64"), nal_length_bytes("hevc", None), nal_length_bytes("vp9", b"")) == (
        0,
    ) * 3


@pytest.mark.parametrize("data", [b"", b"\x00\x00", b"\xff" * 40, b"\x00" * 40, b"\x00\x00\x00\x09\x06"])
def test_damaged_packets_end(data):
    assert not is_unreferenced(data, "h264", 4)
