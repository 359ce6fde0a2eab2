"""Draws small files of the kinds that real collections hold and some reader gets wrong, with ffmpeg and Pillow.

    python eval/odd_videos.py DIR

A line in ODD is a kind: the name of its file, and what draws it. Each file has two seconds of 64 x 48 or less. Some are
no videos at all, or are not to be had: what matters is that each gives frames or an error of its own, and that no file
ends what is done with others (`odd_folder.py`, `fuzz_video.py`).
"""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

_SOURCE = "-f lavfi -i testsrc2=size=64x48:rate=10:duration=2"
_X264 = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 10"
_BOTH = "-c copy -bsf:v setts=pts=DTS:dts=DTS"  # B-frames are said to be shown when they are decoded
_KEYS = " ".join(f"-encryption_{name} 00112233445566778899aabbccddeeff" for name in ("key", "kid"))


def ffmpeg(words: str, *paths: Path) -> None:
    """Run ffmpeg; each {} in `words` is a path."""
    parts = iter(paths)
    command = [str(next(parts)) if word == "{}" else word for word in words.split()]
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *command], check=True, capture_output=True)


def _encode(path: Path, options: str, more: str = "") -> None:
    ffmpeg(f"{_SOURCE} {more} {options} {{}}", path)


def _copy(path: Path, options: str, first: str = f"{_X264} -bf 2") -> None:
    """Encode a file, and copy it into another with these options."""
    whole = path.with_name(f"whole-of-{path.stem}.mkv")
    _encode(whole, first)
    ffmpeg(f"-i {{}} {options} {{}}", whole, path)
    whole.unlink()


def _cut(path: Path, options: str, *, first: float = 0.0, last: float = 1.0, unit: int = 1) -> None:
    """Keep a part of an encoded file, from a share of its bytes to another."""
    _encode(path, options)
    data = path.read_bytes()
    path.write_bytes(data[int(len(data) * first) // unit * unit : int(len(data) * last)])


def _damage(path: Path, options: str) -> None:
    """Spoil bytes in the middle of an encoded file."""
    _encode(path, options)
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 3, len(data) * 2 // 3, 97):
        data[place] ^= 255
    path.write_bytes(data)


def pictures(count: int = 12) -> list[Image.Image]:
    """Moving stripes."""
    rows, columns = np.mgrid[:48, :64]
    stripes = [np.stack([rows + 5 * i, columns + 3 * i, rows ^ columns], -1).astype(np.uint8) for i in range(count)]
    return [Image.fromarray(picture) for picture in stripes]


def _save_moving(path: Path, **options: object) -> None:
    first, *others = pictures()
    first.save(path, save_all=True, append_images=others, **options)


def _save_exif(path: Path) -> None:
    """JPEG pictures as a camera writes them, with a block of EXIF, behind each other in a video file."""
    stream = path.with_name(f"{path.stem}.mjpeg")
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "camera", 6  # its maker, and that it was held upright
    with stream.open("wb") as file:
        for picture in pictures():
            picture.save(file, "JPEG", exif=exif)
    ffmpeg("-f mjpeg -i {} -c copy {}", stream, path)
    stream.unlink()


def _save_grey(path: Path, kind: str) -> None:
    """A picture of 16 bits or of floats."""
    ramp = np.linspace(0, 1, 48 * 64).reshape(48, 64)
    Image.fromarray((ramp * 65535).astype(np.uint16) if kind == "I;16" else ramp.astype(np.float32)).save(path)


def _save_tall(path: Path) -> None:
    Image.new("RGB", (1, 8000), (200, 100, 0)).save(path)


def _save_start(path: Path) -> None:
    """What a player loads first of a film in segments: a header without a frame."""
    _encode(path, f"{_X264} -movflags frag_keyframe+empty_moov+default_base_moof")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moof") - 4])


ODD: dict[str, Callable[[Path], None]] = {
    "palette.avi": partial(_encode, options="-c:v rawvideo -pix_fmt pal8"),
    "palette.mov": partial(_encode, options="-c:v smc -pix_fmt pal8"),
    "still.avif": lambda path: pictures(1)[0].save(path),
    "moving.avif": partial(_save_moving, duration=100),
    "no-index-msmpeg4.avi": partial(_cut, options="-c:v msmpeg4v2 -g 50", last=0.7),
    "no-index-wmv2.avi": partial(_cut, options="-c:v wmv2 -g 50", last=0.7),
    "no-index-cinepak.avi": partial(_cut, options="-c:v cinepak -g 50", last=0.7),
    "no-index-msvideo1.avi": partial(_cut, options="-c:v msvideo1 -g 50 -pix_fmt rgb555le", last=0.7),
    "decoding-times.mkv": partial(_copy, options=_BOTH),
    "decoding-times.mp4": partial(_copy, options=_BOTH),
    "decoding-times.flv": partial(_copy, options=_BOTH),
    "decoding-times.ts": partial(_copy, options=_BOTH),
    "begins-late.ts": partial(_cut, options=f"{_X264} -bf 2", first=0.4, unit=188),
    "fields.ts": partial(_encode, options="-c:v mpeg2video -flags +ilme+ildct -g 10 -bf 2"),
    "reserved-colours.mp4": partial(_copy, options="-c copy -bsf:v h264_metadata=colour_primaries=0"),
    "grey16.png": partial(_save_grey, kind="I;16"),
    "grey16.tiff": partial(_save_grey, kind="I;16"),
    "grey-float.tiff": partial(_save_grey, kind="F"),
    "damaged.mp4": partial(_damage, options=f"{_X264} -bf 2"),
    "hdr.mp4": partial(
        _encode,
        options="-c:v libx265 -preset ultrafast -x265-params log-level=error -pix_fmt yuv420p10le "
        "-colorspace bt2020nc -color_primaries bt2020 -color_trc smpte2084",
    ),
    "uneven.mkv": partial(
        _encode, options=f"-vf settb=1/1000,setpts=N*(N+20)*4 -fps_mode passthrough -enc_time_base 1/1000 {_X264}"
    ),
    "turned-once.mp4": partial(_copy, options="-c copy -bsf:v h264_metadata=display_orientation=insert:rotate=90"),
    "no-delay.gif": partial(_save_moving, duration=0),
    "default-image.apng": partial(_save_moving, default_image=True, format="PNG"),
    "clock-at-5.mkv": partial(_copy, options="-c copy -output_ts_offset 5"),
    "sound-first.mkv": partial(_encode, more="-f lavfi -i sine=d=2", options=f"{_X264} -c:a aac"),
    "init.mp4": _save_start,
    "encrypted.mp4": partial(
        _encode,
        options=f"{_X264} -encryption_scheme cenc-aes-ctr {_KEYS} -fflags +bitexact",
    ),
    "fragments.mp4": partial(_encode, options=f"{_X264} -bf 2 -movflags frag_keyframe+empty_moov"),
    "an-hour-a-frame.mkv": partial(_copy, options="-c copy -bsf:v setts=ts=N*3600/TB", first=f"{_X264} -bf 0"),
    "raw.h264": partial(_encode, options=f"{_X264} -bf 2"),
    "raw.hevc": partial(_encode, options="-c:v libx265 -preset ultrafast -x265-params log-level=error"),
    "tall.png": _save_tall,
    "seven-frames.mp4": partial(_encode, options=f"{_X264} -frames:v 7"),
    "exif.avi": _save_exif,
    "exif.mov": _save_exif,
    "exif.mkv": _save_exif,
}


def draw_odd(folder: Path, name: str) -> Path:
    """The file of this kind, drawn into the folder."""
    path = folder / name
    ODD[name](path)
    return path


if __name__ == "__main__":
    into = Path(sys.argv[1])
    into.mkdir(parents=True, exist_ok=True)
    for kind in ODD:
        draw_odd(into, kind)
