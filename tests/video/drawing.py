"""Draws small videos whose every frame tells its own number, so that a test can read it back from the pixels."""

from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from einops import rearrange

BITS = 10  # numbers to 1023


def numbered_picture(number: int, *, height: int = 64, width: int = 96) -> np.ndarray:
    """A picture with its number as ten black or white blocks (upper half) over a grey that is a little noisy."""
    picture = np.random.default_rng(number).integers(96, 160, (height, width, 3), dtype=np.uint8)
    block = width // BITS
    for bit in range(BITS):
        picture[: height // 2, bit * block : (bit + 1) * block] = 255 * (number >> bit & 1)
    return picture


def number_in(picture: np.ndarray) -> int:
    """The number that `numbered_picture` drew, after any codec."""
    block = picture.shape[1] // BITS
    upper = picture[: picture.shape[0] // 2, : block * BITS].mean(axis=2)
    bits = rearrange(upper, "h (n w) -> n h w", n=BITS).mean(axis=(1, 2)) > 128
    return int((bits * 2 ** np.arange(BITS)).sum())


def draw_video(
    path,
    *,
    frames: int = 40,
    rate: int = 10,
    codec: str = "libx264",
    gop: int = 12,
    b_frames: int = 2,
    seconds: Sequence[float] = (),
):
    """A video of numbered pictures at `path`; the container follows from the path's ending.

    `seconds` says when each is shown, to milliseconds, in place of a constant rate.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000 if seconds else rate)
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            frame.pts = round(1000 * seconds[number]) if seconds else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
