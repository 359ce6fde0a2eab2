import av
import numpy as np
import pytest

from clipact.video.load import load_clip
from clipact.video.rgb import RgbConverter

from .corpus import decode_with_ffmpeg, ffmpeg
from .drawing import numbered_picture


def _frame(**colours: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(numbered_picture(5), format="rgb24").reformat(format="yuv420p")
    for name, value in ({"color_trc": 2, "color_primaries": 2, "colorspace": 2, "color_range": 0} | colours).items():
        setattr(frame, name, value)
    return frame


@pytest.mark.parametrize("name", ["color_trc", "color_primaries", "colorspace", "color_range"])
def test_reserved_and_unknown_colours_are_taken_as_unspecified(name):
    plain = RgbConverter("a").convert(_frame())
    noted = 0
    for value in (0, 3, 9, 10, 11, 19, 23, 255, 300):
        converter = RgbConverter("a")
        for _ in range(2):  # the second by the same scaler
            picture = converter.convert(_frame(**{name: value}))
        if converter.notes:
            noted += 1
            kind = {"color_trc": "transfer", "color_primaries": "primaries", "colorspace": "matrix"}.get(name, "range")
            words = f"its colours ({kind} {value}) are reserved or not known to FFmpeg: the usual ones are taken"
            assert converter.notes == (words,)
            if (name, value) != ("colorspace", 10):
                assert np.array_equal(picture, plain)
    assert noted >= 4


def test_frames_that_are_not_alike_are_each_read_by_their_own_colours():
    converter = RgbConverter("a")
    kinds: list[dict[str, int]] = [{}, {"color_trc": 9}, {"colorspace": 1}, {"color_primaries": 0, "color_trc": 10}, {}]
    for colours in kinds:
        alone = RgbConverter("b").convert(_frame(**colours))
        assert np.array_equal(converter.convert(_frame(**colours)), alone)
    assert not np.array_equal(RgbConverter("c").convert(_frame(colorspace=1)), RgbConverter("d").convert(_frame()))
    assert len(converter.notes) == 2


@pytest.mark.parametrize(
    "option",
    ["transfer_characteristics=9", "transfer_characteristics=10", "matrix_coefficients=10", "colour_primaries=0"],
)
@pytest.mark.parametrize("ending", ["mp4", "ts"])
def test_files_with_odd_colours_come_out_as_ffmpeg_shows_them(tmp_path, option, ending):
    plain, odd = tmp_path / "plain.mp4", tmp_path / f"odd.{ending}"
    ffmpeg("-f lavfi -i testsrc2=size=64x48:rate=5:duration=1 -c:v libx264 -pix_fmt yuv420p {}", plain)
    ffmpeg(f"-i {{}} -c copy -bsf:v h264_metadata={option} {{}}", plain, odd)
    every, _ = decode_with_ffmpeg(odd)
    clip = load_clip(odd, frames=5)
    assert np.array_equal(clip.frames, every)
    assert [note for note in clip.notes if "its colours" in note] or option == "colour_primaries=0"
