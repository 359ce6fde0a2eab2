"""Convert decoded frames to upright RGB, with FFmpeg's scaler; tones of high dynamic range are mapped."""

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
from clipact.video.picture_notes import note_hdr, note_lines
from clipact.video.tone_mapping import HDR_TRANSFERS, map_tones

# What FFmpeg's command line and torchcodec do, whichever version each of them links: bicubic where chroma must be
# interpolated (10-bit, odd sizes), its position left unspecified. PyAV's own `reformat` follows the stream's chroma
# position there, and differs from both by up to 130 of 255.
_SCALE = "flags=bicubic:in_h_chr_pos=-513:in_v_chr_pos=-513"

_BT709_PRIMARIES = 1

# By the attribute of a frame: what ITU-T H.273 calls the value. 2 is "unspecified"; of the range, 0 is.
_COLOURS = {
    "color_trc": "transfer",
    "color_primaries": "primaries",
    "colorspace": "matrix",
    "color_range": "range",
}
_UNSPECIFIED = {"color_trc": 2, "color_primaries": 2, "colorspace": 2, "color_range": 0}
_CONSTANT_LUMINANCE, _BT2020_MATRIX = 10, 9  # the one is taken as the other, as FFmpeg's command does
# Which values are taken as unspecified, until FFmpeg's scaler knows all that are left.
_RESETS: tuple[tuple[str, ...], ...] = ((), *((name,) for name in _COLOURS), tuple(_COLOURS))


class RgbConverter:
    """Turns the av.VideoFrames of one video into upright RGB; keeps FFmpeg's scaler while they are alike.

    name   of the video
    notes  what was unusual about the frames so far
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes: tuple[str, ...] = ()
        self._graph: Any = None
        self._fits: tuple[Any, ...] = ()
        self._resets: tuple[str, ...] = ()  # of frames that are alike

    def convert(self, frame: Any, *, matrix: tuple[int, int, int, int] | None = None) -> UInt8[np.ndarray, "h w c"]:
        """The frame as RGB, in the range and colours that it declares, turned by `matrix`; None: by its own.

        Pixels that are not square are left as they are stored: the models of this field were trained on them so. Light
        of high dynamic range is brought to that of ordinary video (`tone_mapping`). Colour values that FFmpeg's scaler
        does not know are taken as unspecified (of BT.2020 with constant luminance, as without), with a note: FFmpeg's
        command does the same.
        VideoError for colours that FFmpeg cannot convert all the same, as a damaged header may declare them.
        """
        colours = {name: getattr(frame, name) for name in _COLOURS}
        kind = (frame.format.name, frame.width, frame.height, *colours.values())
        if kind == self._fits:
            picture = self._scale(frame)
        else:
            self._graph, picture = None, self._begin(frame, colours)
            self._fits = kind
        self._note(note_lines(frame))
        transfer = colours["color_trc"]
        if transfer in HDR_TRANSFERS:
            picture = map_tones(picture, transfer, bt2020=colours["color_primaries"] != _BT709_PRIMARIES)
        return turn_upright(picture, matrix or display_matrix(frame))

    def _begin(self, frame: Any, colours: dict[str, int]) -> np.ndarray:
        """The frame as RGB, when it differs from the ones before it: which scaler fits is found out."""
        cause = ""
        for self._resets in _RESETS:
            try:
                picture = self._scale(frame)
            except VideoError as error:
                cause, self._graph = cause or error.cause, None
                continue
            if self._resets:
                said = ", ".join(f"{_COLOURS[name]} {colours[name]}" for name in self._resets)
                self._note((f"its colours ({said}) are reserved or not known to FFmpeg: the usual ones are taken",))
            self._note(note_hdr(colours["color_trc"]))
            return picture
        raise VideoError(self.name, cause)

    def _scale(self, frame: Any) -> np.ndarray:
        for name in self._resets:
            alike = name == "colorspace" and frame.colorspace == _CONSTANT_LUMINANCE
            setattr(frame, name, _BT2020_MATRIX if alike else _UNSPECIFIED[name])
        try:
            if self._graph is None:
                self._graph = _rgb_graph(frame)
            self._graph.push(frame)
            return np.asarray(self._graph.pull().to_ndarray())
        except av.error.FFmpegError as error:
            cause = f"its colours, {frame.format.name}, cannot be turned into RGB: {error.strerror}"
            raise VideoError(self.name, cause) from error

    def _note(self, notes: tuple[str, ...]) -> None:
        self.notes += tuple(note for note in notes if note not in self.notes)


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
    """FFmpeg's scaler to RGB of 8 bits; of 16 where tones are to be mapped."""
    pixel_format = "rgb48le" if frame.color_trc in HDR_TRANSFERS else "rgb24"
    return _graph(frame, [("scale", _SCALE), ("format", pixel_format)])


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
