"""Convert decoded frames to upright RGB, with FFmpeg's scaler."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from jaxtyping import UInt8

from clipact.errors import VideoError

# What FFmpeg's command line and torchcodec do, whichever version each of them links: bicubic where chroma must be
# interpolated (10-bit, odd sizes), its position left unspecified. PyAV's own `reformat` follows the stream's chroma
# position there, and differs from both by up to 130 of 255.
_SCALE = "flags=bicubic:in_h_chr_pos=-513:in_v_chr_pos=-513"


class RgbConverter:
    """Turns the av.VideoFrames of the video `name` into upright RGB; keeps FFmpeg's scaler while they are alike."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._graph: Any = None
        self._fits: tuple[Any, ...] = ()

    def convert(self, frame: Any, *, matrix: tuple[int, int, int, int] | None = None) -> UInt8[np.ndarray, "h w c"]:
        """The frame as RGB, in the range and colours that it declares, turned by `matrix`; None: by its own.

        Pixels that are not square are left as they are stored: the models of this field were trained on them so.
        VideoError for colours that FFmpeg cannot convert, as a damaged header may declare them.
        """
        kind = (frame.format.name, frame.width, frame.height, frame.colorspace, frame.color_range)
        try:
            if kind != self._fits:
                self._graph, self._fits = _rgb_graph(frame), kind
            self._graph.push(frame)
            picture = self._graph.pull().to_ndarray()
        except av.error.FFmpegError as error:
            cause = f"its colours, {frame.format.name}, cannot be turned into RGB: {error.strerror}"
            raise VideoError(self.name, cause) from error
        return turn_upright(picture, matrix or display_matrix(frame))


def turn_upright(
    picture: UInt8[np.ndarray, "h w c"], matrix: tuple[int, int, int, int]
) -> UInt8[np.ndarray, "h2 w2 c"]:
    """The picture turned and mirrored by a display matrix (a, b, c, d) of quarter turns; others are left out.

    The matrix takes a stored pixel (x, y) to the shown one (a x + c y, b x + d y), y pointing down
    (ISO/IEC 14496-12, 6.2.2).
    """
    a, b, c, d = (int(np.sign(number)) for number in matrix)
    if a and d and not b and not c:
        turned = picture[::d, ::a]
    elif b and c and not a and not d:
        turned = picture.transpose(1, 0, 2)[::b, ::c]
    else:
        return picture
    return np.ascontiguousarray(turned)


def display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """The four numbers of the frame's display matrix that turn and mirror; the identity when it has none."""
    try:
        data = frame.side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # 31 (EXIF) is not a valid Type
        data = _without_unknown_kinds(frame).side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return UPRIGHT
    a, b, _, c, d, *_ = struct.unpack("<9i", bytes(data)[:36])
    return (a, b, c, d)


UPRIGHT = (1, 0, 0, 1)

# Kinds of side data that PyAV's enumeration may lack: any frame that carries one cannot be asked for the others.
_KINDS = range(64)


def _without_unknown_kinds(frame: Any) -> Any:
    """The frame without the side data that PyAV cannot name."""
    unknown = set(_KINDS) - {kind.value for kind in Type}
    graph = _graph(frame, [("sidedata", f"mode=delete:type={kind}") for kind in sorted(unknown)])
    graph.push(frame)
    return graph.pull()


def _rgb_graph(frame: Any) -> Any:
    return _graph(frame, [("scale", _SCALE), ("format", "rgb24")])


def _graph(frame: Any, filters: Sequence[tuple[str, str]]) -> Any:
    graph = Graph()
    graph.threads = 1  # a frame is small work: handing it out costs more than it saves
    steps = [
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)),
        *(graph.add(name, options) for name, options in filters),
        graph.add("buffersink"),
    ]
    for before, after in pairwise(steps):
        before.link_to(after)
    graph.configure()
    return graph
