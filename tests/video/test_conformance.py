"""Every decoder gives the frames that the ffmpeg command gives, pixel for pixel, whatever the file."""

import importlib.util

import numpy as np
import pytest

from clipact.video.load import load_clip

from .corpus import CORPUS, ROTATIONS, decode_with_ffmpeg, draw, draw_edited, draw_rotated, need

DECODERS = ["pyav", "torchcodec"]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Draws a file and its frames once, however many tests ask for them."""
    folder = tmp_path_factory.mktemp("corpus")
    drawn = {}

    def find(name):
        if name not in drawn:
            path = draw(name, folder)
            drawn[name] = (path, *decode_with_ffmpeg(path))
        return drawn[name]

    return find


@pytest.fixture(params=DECODERS)
def decoder(request):
    if request.param == "torchcodec":
        need("torchcodec", importlib.util.find_spec("torchcodec") is not None)
    return request.param


# What torchcodec does not give rightly, and what the note says then: PyAV is asked instead. No other may fall back.
NOT_BY_TORCHCODEC = {
    "mirrored": "shown mirrored",
    "hevc 10-bit hdr": "does not map the tones",
    "mpeg-4 avi with b-frames": "time stamps do not hold",
    "mpeg-2 program stream": "not give the frames",
    "mpeg-ts mpeg-2": "not give the frames",
}


def _assert_decoded_as_asked(clip, decoder, name):
    if decoder == "torchcodec" and name == "h264 intra refresh":
        # It has no frame that a decoder may start at: torchcodec gives all of its frames, but not each few of them.
        assert (clip.decoder == "pyav") == any("torchcodec was not used" in note for note in clip.notes)
        return
    refused = NOT_BY_TORCHCODEC.get(name) if decoder == "torchcodec" else None
    assert clip.decoder == ("pyav" if refused else decoder)
    notes = [note for note in clip.notes if "torchcodec was not used" in note]
    assert (len(notes) == 1 and refused in notes[0]) if refused else not notes


def _assert_same(path, decoder, every, seconds, *, name):
    """All frames, and then a few, so that seeking is tried as well as reading on."""
    for count in {1, 2, 5, len(every)}:
        clip = load_clip(path, frames=count, decoder=decoder)
        _assert_decoded_as_asked(clip, decoder, name)
        for stamp, frame in zip(clip.stamps, clip.frames, strict=True):
            assert np.array_equal(frame, every[stamp.index]), stamp
            assert stamp.seconds == pytest.approx(seconds[stamp.index], abs=2e-3)
        assert not any("cut short" in note for note in clip.notes)
    assert [stamp.index for stamp in clip.stamps] == sorted({stamp.index for stamp in clip.stamps}) or count > len(
        every
    )
    half = load_clip(path, (seconds[-1] + seconds[0]) / 2, frames=1, decoder=decoder)
    assert np.array_equal(half.frames[0], every[half.stamps[0].index])


@pytest.mark.parametrize("name", CORPUS)
def test_the_same_frames_as_ffmpeg(corpus, name, decoder):
    path, every, seconds = corpus(name)
    clip = load_clip(path, frames=len(every), decoder=decoder)
    assert [stamp.index for stamp in clip.stamps] == list(range(len(every)))
    _assert_same(path, decoder, every, seconds, name=name)


def test_an_edit_list(tmp_path, decoder):
    path = draw_edited(tmp_path)
    every, seconds = decode_with_ffmpeg(path)
    assert len(load_clip(path, frames=len(every), decoder=decoder).frames) == len(every)
    _assert_same(path, decoder, every, seconds, name="edited")


@pytest.mark.parametrize("name", ROTATIONS)
def test_rotation_by_metadata(tmp_path, name, decoder):
    path = draw_rotated(tmp_path, ROTATIONS[name])
    every, seconds = decode_with_ffmpeg(path)
    _assert_same(path, decoder, every, seconds, name=name)
