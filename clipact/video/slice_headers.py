"""Read the headers of compressed pictures: whether a packet is a reference, a fresh start or stored out of order.

Only the first bytes of a slice are read; what they do not say is left to the decoder.
"""

from collections.abc import Iterator
from typing import Any

_H264_SLICES = range(1, 6)
_H264_IDR = 5
_HEVC_SLICES = range(32)
_HEVC_IDR = (19, 20)
_START_CODE = b"\0\0\1"
_HEVC_UNREFERENCED = range(0, 16, 2)  # TRAIL_N, TSA_N, ... (ITU-T H.265, table 7-1)


def is_unreferenced(packet: Any, codec: str, length_bytes: int) -> bool:
    """Whether the packet holds a picture that is no reference; False where its headers do not say.

    `length_bytes` is the size of the length before each NAL unit (MP4, Matroska); 0 for start codes (MPEG-TS).
    """
    if not length_bytes or codec not in ("h264", "hevc"):
        return False
    header = _slice_header(packet, codec, length_bytes)
    if header is None:
        return False
    return header >> 5 & 3 == 0 if codec == "h264" else header >> 1 & 63 in _HEVC_UNREFERENCED


def resets(packet: Any, codec: str, length_bytes: int) -> bool:
    """Whether the packet holds a picture of H.264 or HEVC at which a decoder forgets all before (IDR)."""
    header = _slice_header(packet, codec, length_bytes)
    if header is None:
        return False
    return header & 31 == _H264_IDR if codec == "h264" else header >> 1 & 63 in _HEVC_IDR


def _slice_header(packet: Any, codec: str, length_bytes: int) -> int | None:
    """The first byte of the first slice; None where there is none."""
    data = memoryview(packet)
    place = _slice_start(data, codec, length_bytes)
    return None if place is None else data[place]


def _slice_start(data: Any, codec: str, length_bytes: int) -> int | None:
    """Where the first slice begins; None where there is none."""
    for place in _after_lengths(data, length_bytes) if length_bytes else _after_start_codes(data):
        if (data[place] & 31 in _H264_SLICES) if codec == "h264" else (data[place] >> 1 & 63 in _HEVC_SLICES):
            return place
    return None


def _after_lengths(data: Any, length_bytes: int) -> Iterator[int]:
    place = 0
    while place + length_bytes < len(data):
        yield place + length_bytes
        place += length_bytes + int.from_bytes(data[place : place + length_bytes], "big")


def _after_start_codes(data: Any) -> Iterator[int]:
    data = bytes(data)
    place = data.find(_START_CODE)
    while 0 <= place < len(data) - len(_START_CODE):
        yield place + len(_START_CODE)
        place = data.find(_START_CODE, place + len(_START_CODE))


_H264_B = (1, 6)  # ITU-T H.264, table 7-6
_MPEG_PICTURE = b"\0\0\1\0"
_MPEG_B = 3  # ISO/IEC 13818-2, table 6-12
_MPEG4_PICTURE = b"\0\0\1\xb6"
_MPEG4_B = 2  # ISO/IEC 14496-2, table 6-20


def may_be_reordered(packet: Any, codec: str, length_bytes: int) -> bool:
    """Whether the packet may hold a B-picture, which is stored later than it is shown; True where headers don't say."""
    data = bytes(packet)
    if codec == "h264":
        start = _slice_start(data, codec, length_bytes)
        return start is None or _slice_type(data[start + 1 : start + 9]) in _H264_B
    if codec in ("mpeg1video", "mpeg2video"):
        place = data.find(_MPEG_PICTURE) + 5
        return not 5 <= place < len(data) or data[place] >> 3 & 7 == _MPEG_B
    if codec == "mpeg4":
        place = data.find(_MPEG4_PICTURE) + 4
        return not 4 <= place < len(data) or data[place] >> 6 == _MPEG4_B
    return True


def _slice_type(data: bytes) -> int | None:
    """The second number (exp-Golomb) of a slice header of H.264 (7.3.3); None where it is not there."""
    bits = "".join(f"{byte:08b}" for byte in data)
    number = None
    for _ in range(2):
        zeros = bits.find("1")
        end = 2 * zeros + 1
        if zeros < 0 or end > len(bits):
            return None
        number, bits = int(bits[zeros:end], 2) - 1, bits[end:]
    return number


def nal_length_bytes(codec: str, extradata: bytes | None) -> int:
    """The size of NAL unit lengths that the decoder's configuration states; 0 where start codes are used."""
    if not extradata or extradata[0] != 1:
        return 0
    place = {"h264": 4, "hevc": 21}.get(codec)
    return (extradata[place] & 3) + 1 if place is not None and len(extradata) > place else 0


SAYS_ORIENTATION = {"h264": (6, 1), "hevc": (39, 2)}  # NAL unit type, bytes of its header
_ORIENTATION = 47  # ITU-T H.264, D.1.1; H.265, D.2.1


def states_orientation(packet: Any, codec: str, length_bytes: int) -> bool:
    """Whether the packet holds a display orientation message: an SEI of H.264 or HEVC, which turns one picture."""
    if codec not in SAYS_ORIENTATION:
        return False
    kind, header_bytes = SAYS_ORIENTATION[codec]
    data = bytes(packet)
    for place in _after_lengths(data, length_bytes) if length_bytes else _after_start_codes(data):
        found = data[place] & 31 if codec == "h264" else data[place] >> 1 & 63
        if found == kind and _ORIENTATION in _message_kinds(data, place + header_bytes):
            return True
    return False


def _message_kinds(data: bytes, place: int) -> Iterator[int]:
    """The kinds of the messages of an SEI (7.3.2.3.1), up to its end."""
    while place < len(data) and data[place] != 0x80:
        numbers = []
        for _ in range(2):  # the kind, and its size
            number = 0
            while place < len(data) and data[place] == 0xFF:
                number, place = number + 0xFF, place + 1
            if place >= len(data):
                return
            numbers.append(number + data[place])
            place += 1
        yield numbers[0]
        place += numbers[1]
