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


def _assert_same(path, decoder, every, seconds):
    """All frames, and then a few, so that seeking is tried as well as reading on."""
    for count in {1, 2, 5, len(every)}:
        clip = load_clip(path, frames=count, decoder=decoder)
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
    _assert_same(path, decoder, every, seconds)


def test_an_edit_list(tmp_path, decoder):
    path = draw_edited(tmp_path)
    every, seconds = decode_with_ffmpeg(path)
    assert len(load_clip(path, frames=len(every), decoder=decoder).frames) == len(every)
    _assert_same(path, decoder, every, seconds)


@pytest.mark.parametrize("name", ROTATIONS)
def test_rotation_by_metadata(tmp_path, name, decoder):
    path = draw_rotated(tmp_path, ROTATIONS[name])
    every, seconds = decode_with_ffmpeg(path)
    _assert_same(path, decoder, every, seconds)
