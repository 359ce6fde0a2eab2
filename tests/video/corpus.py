"""Draws the files of the conformance corpus with the ffmpeg command, and decodes them with it for comparison.

Each file is what some camera, phone, tool or broadcaster makes and some reader gets wrong. Nothing is downloaded.
"""

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from clipact.video.tone_mapping import map_tones

_X264 = "-c:v libx264 -preset veryfast -pix_fmt yuv420p"
_X265 = "-c:v libx265 -preset veryfast -x265-params log-level=error"

# name: (ending, size, seconds, output options)
CORPUS = {
    "h264 long gop and b-frames": ("mp4", "160x120", 4, f"{_X264} -g 250 -bf 3"),
    "h264 short gop": ("mp4", "160x120", 2, f"{_X264} -g 10 -bf 2"),
    "h264 open gop": ("mkv", "160x120", 3, f"{_X264} -x264-params open-gop=1:keyint=12:bframes=3:scenecut=0"),
    "h264 intra refresh": ("mkv", "160x120", 3, f"{_X264} -x264-params intra-refresh=1:keyint=20:bframes=0"),
    "h264 interlaced": ("mp4", "160x128", 2, f"{_X264} -flags +ilme+ildct -x264-params tff=1"),
    "hevc": ("mp4", "160x120", 2, f"{_X265}:keyint=20:bframes=4 -pix_fmt yuv420p -tag:v hvc1"),
    "hevc open gop": ("mkv", "160x120", 2, f"{_X265}:keyint=15:open-gop=1:bframes=4 -pix_fmt yuv420p"),
    "mpeg-4 avi": ("avi", "160x120", 2, "-c:v mpeg4 -g 12 -q:v 4"),
    "mpeg-4 avi with b-frames": ("avi", "160x120", 2, "-c:v mpeg4 -g 12 -bf 2 -q:v 4"),
    "mpeg-4 mp4 with b-frames": ("mp4", "160x120", 2, "-c:v mpeg4 -g 12 -bf 2 -q:v 4"),
    "mpeg-2 program stream": ("mpg", "160x120", 2, "-c:v mpeg2video -g 12 -bf 2 -q:v 4"),
    "vp8 with hidden frames": ("webm", "160x120", 2, "-c:v libvpx -auto-alt-ref 1 -lag-in-frames 16 -g 15 -b:v 200k"),
    "vp9 without a frame count": ("webm", "160x120", 2, "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -live 1 -g 15"),
    "vp9 with hidden frames": ("webm", "160x120", 2, "-c:v libvpx-vp9 -cpu-used 5 -auto-alt-ref 1 -g 20"),
    "av1": ("mkv", "160x120", 1, "-c:v libsvtav1 -preset 10 -g 15"),
    "mjpeg": ("avi", "160x120", 1, "-c:v mjpeg -q:v 4 -pix_fmt yuvj420p"),
    "mpeg-ts with a start offset": ("ts", "160x120", 3, f"{_X264} -g 15 -bf 2 -output_ts_offset 3601.5"),
    "mpeg-ts mpeg-2": ("ts", "160x120", 2, "-c:v mpeg2video -g 12 -bf 2 -q:v 4"),
    "flv": ("flv", "160x120", 2, f"{_X264} -g 20"),
    "wmv": ("wmv", "160x120", 2, "-c:v wmv2 -g 12 -q:v 4"),
    "variable frame rate": (
        "mp4",
        "160x120",
        3,
        f"-vf setpts='(N*N/60+N)/25/TB' -fps_mode vfr -video_track_timescale 90000 {_X264} -g 30 -bf 2",
    ),
    "variable frame rate matroska": ("mkv", "160x120", 3, f"-vf setpts='(N+mod(N\\,3)/4)/25/TB' -fps_mode vfr {_X264}"),
    "odd size": ("webm", "161x121", 1, "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -pix_fmt yuv420p"),
    "odd size 4:4:4": ("mp4", "161x121", 1, "-c:v libx264 -preset veryfast -pix_fmt yuv444p"),
    "non-square pixels": ("mp4", "160x120", 1, f"-vf setsar=4/3 {_X264}"),
    "h264 10-bit": ("mp4", "160x120", 1, "-c:v libx264 -preset veryfast -pix_fmt yuv420p10le"),
    "hevc 10-bit hdr": (
        "mp4",
        "160x120",
        1,
        f"{_X265} -pix_fmt yuv420p10le -colorspace bt2020nc -color_primaries bt2020 -color_trc smpte2084",
    ),
    "bt.709": ("mp4", "160x120", 1, f"{_X264} -colorspace bt709 -color_primaries bt709 -color_trc bt709"),
    "full range": ("mp4", "160x120", 1, "-c:v libx264 -preset veryfast -pix_fmt yuvj420p"),
    "grey": ("mp4", "160x120", 1, "-c:v libx264 -preset veryfast -pix_fmt gray"),
    "lossless rgb": ("mkv", "160x120", 1, "-c:v ffv1 -pix_fmt bgr0"),
    "with audio": ("mp4", "160x120", 2, f"{_X264} -f lavfi -i sine=d=2 -c:a aac"),
    "one frame": ("mp4", "160x120", 1, f"{_X264} -frames:v 1"),
    "two frames": ("mp4", "160x120", 1, f"{_X264} -frames:v 2"),
}
ROTATIONS = {
    "upright": (1, 0, 0, 1),
    "turned by 90": (0, 1, -1, 0),
    "turned by 180": (-1, 0, 0, -1),
    "turned by 270": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
}


def need(name: str, there: bool) -> None:
    """Skips a test that lacks something; where CI=true it fails, so that no green run has left it out."""
    if there:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} is missing: CI installs it")
    pytest.skip(f"{name} is not installed")


def ffmpeg(words: str, *paths: Path | str) -> bytes:
    """What ffmpeg prints; each {} in `words` is a path."""
    need("ffmpeg", shutil.which("ffmpeg") is not None)
    parts = iter(paths)
    command = [str(next(parts)) if word == "{}" else word for word in words.replace("'", "").split()]
    answer = subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *command], check=True, capture_output=True)
    return answer.stdout


def draw(name: str, folder: Path) -> Path:
    """The file of the corpus by this name."""
    ending, size, seconds, options = CORPUS[name]
    path = folder / f"{name.replace(' ', '-')}.{ending}"
    source = f"-f lavfi -i testsrc2=size={size}:rate=25:duration={seconds}"
    if "-f lavfi -i sine" in options:
        options, sound = options.split(" -f lavfi -i ")
        source += f" -f lavfi -i {sound.split(' ', 1)[0]}"
        options += " " + sound.split(" ", 1)[1]
    ffmpeg(f"{source} {options} {{}}", path)
    return path


def draw_edited(folder: Path) -> Path:
    """A file whose edit list begins between two key frames: frames before it are decoded and not shown."""
    whole, path = folder / "whole.mp4", folder / "edited.mp4"
    ffmpeg(f"-f lavfi -i testsrc2=size=160x120:rate=25:duration=4 {_X264} -g 30 -bf 2 {{}}", whole)
    ffmpeg("-ss 1.7 -i {} -c copy {}", whole, path)
    return path


def draw_rotated(folder: Path, matrix: tuple[int, int, int, int]) -> Path:
    """A file whose track header turns or mirrors the picture (ISO/IEC 14496-12, 8.3.2)."""
    path = folder / "rotated.mp4"
    ffmpeg(f"-f lavfi -i testsrc2=size=160x120:rate=25:duration=1 {_X264} {{}}", path)
    data = bytearray(path.read_bytes())
    a, b, c, d = (number << 16 for number in matrix)
    place = data.index(b"tkhd") + 4 + 40
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


_HDR = {"smpte2084": 16, "arib-std-b67": 18}


def decode_with_ffmpeg(path: Path) -> tuple[np.ndarray, list[float]]:
    """Every frame as the ffmpeg command decodes it, RGB, and when it is shown, counted from the first.

    Of high dynamic range it decodes 16 bits, of which the tones are mapped here.
    """
    probe = subprocess.run(
        ["ffprobe", "-v", "error", "-select_streams", "v", "-show_streams", "-show_frames", "-of", "json", str(path)],
        check=True,
        capture_output=True,
    )
    told = json.loads(probe.stdout)
    frames = told["frames"]
    # An AVI has no stamps for frames that are shown out of order: they follow each other at its rate, 25.
    known = all("best_effort_timestamp_time" in frame for frame in frames)
    seconds = [float(frame["best_effort_timestamp_time"]) if known else i / 25 for i, frame in enumerate(frames)]
    hdr = _HDR.get(frames[0].get("color_transfer", ""))
    pixels = "rgb48le" if hdr else "rgb24"
    raw = ffmpeg(f"-i {{}} -map 0:v:0 -fps_mode passthrough -f rawvideo -pix_fmt {pixels} -", path)
    height, width = frames[0]["height"], frames[0]["width"]
    if any(side.get("rotation", 0) % 180 for side in told["streams"][0].get("side_data_list", [])):
        height, width = width, height
    array = np.frombuffer(raw, np.uint16 if hdr else np.uint8).reshape(-1, height, width, 3)
    if hdr:
        array = np.stack([map_tones(coded, hdr) for coded in array])
    return array, [second - seconds[0] for second in seconds]
