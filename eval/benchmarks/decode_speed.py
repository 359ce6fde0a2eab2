"""Seconds and memory to get 8, 16 and 32 frames of a video: clipact beside the decoders that people use.

    python eval/benchmarks/decode_speed.py --videos DIR [--repeats 5] [--only NAME] [--json FILE]

Draws the videos into DIR with the ffmpeg command when they are not there (10 s and 60 s of 360p, 10 s of 1080p, 10
minutes of 720p: one minute ten times), from the example clips, so that they move and are noisy as camera video is.
Everyone gives the same frames, from the middles of equal segments, as RGB bytes at full size. Taken in turn in one
process, the best of the repeats; peak memory is that of a process of its own. What is not installed is left out.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clipact.video.sampling import segment_centers

EXAMPLES = Path(__file__).parents[2] / "examples"
VIDEOS = {
    "10 s 360p": ("10s_360p.mp4", 10, "640:360", "medium"),
    "60 s 360p": ("60s_360p.mp4", 60, "640:360", "medium"),
    "10 s 1080p": ("10s_1080p.mp4", 10, "1920:1080", "medium"),
    "10 min 720p": ("10min_720p.mp4", 600, "1280:720", "fast"),
}
RATE = 30
MINUTE = 60


def draw(path: Path, seconds: int, size: str, preset: str) -> None:
    """Two example clips over each other, with the noise of a sensor, as H.264 with ffmpeg's own settings.

    What is longer than a minute repeats its first one, without encoding it again.
    """
    if seconds > MINUTE:
        first = path.with_name(f"minute_of_{path.name}")
        draw(first, MINUTE, size, preset)
        repeat = ["ffmpeg", "-v", "error", "-stream_loop", str(seconds // MINUTE - 1), "-i", str(first), "-c", "copy"]
        subprocess.run([*repeat, str(path)], check=True)
        first.unlink()
        return
    scale = f"fps={RATE},scale={size},setsar=1"
    mix = f"[0:v]{scale}[a];[1:v]{scale}[b];[a][b]blend=all_mode=average,noise=alls=3:allf=t"
    loops = []
    for name in ("reading_while_walking", "drinking_then_falling"):
        loops += ["-stream_loop", "-1", "-i", str(EXAMPLES / f"{name}.mp4")]
    command = ["ffmpeg", "-v", "error", *loops, "-t", str(seconds), "-filter_complex", mix]
    command += ["-c:v", "libx264", "-preset", preset, "-crf", "24", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, check=True)


def by_clipact(path: str, indices: list[int]) -> Any:
    from clipact.video.load import load_clip

    return load_clip(path, frames=len(indices)).frames


def by_clipact_torchcodec(path: str, indices: list[int]) -> Any:
    from clipact.video.load import load_clip

    return load_clip(path, frames=len(indices), decoder="torchcodec").frames


def by_pyav_decoding_all(path: str, indices: list[int]) -> Any:
    import av

    wanted = set(indices)
    with av.open(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        every = enumerate(container.decode(video=0))
        return np.stack([frame.to_ndarray(format="rgb24") for number, frame in every if number in wanted])


def by_torchcodec(path: str, indices: list[int]) -> Any:
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder(path, dimension_order="NHWC").get_frames_at(indices).data.numpy()


def by_torchcodec_all_threads(path: str, indices: list[int]) -> Any:
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=0).get_frames_at(indices).data.numpy()


def by_torchcodec_approximate(path: str, indices: list[int]) -> Any:
    from torchcodec.decoders import VideoDecoder

    options = {"dimension_order": "NHWC", "num_ffmpeg_threads": 0, "seek_mode": "approximate"}
    return VideoDecoder(path, **options).get_frames_at(indices).data.numpy()


def by_decord(path: str, indices: list[int]) -> Any:
    from decord import VideoReader

    return VideoReader(path).get_batch(indices).asnumpy()


def by_opencv(path: str, indices: list[int]) -> Any:
    import cv2

    capture = cv2.VideoCapture(path)
    frames = []
    for index in indices:
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        frames.append(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))
    return np.stack(frames)


WAYS: dict[str, Callable[[str, list[int]], Any]] = {
    "clipact": by_clipact,
    "clipact, torchcodec": by_clipact_torchcodec,
    "PyAV, all frames": by_pyav_decoding_all,
    "torchcodec": by_torchcodec,
    "torchcodec, all threads": by_torchcodec_all_threads,
    "torchcodec, approximate": by_torchcodec_approximate,
    "decord": by_decord,
    "OpenCV": by_opencv,
}
SLOW_SECONDS = 20.0  # a way that took so long once is not measured again


def measure(path: Path, frames: int, count: int, ways: list[str], *, repeats: int) -> dict[str, dict[str, Any]]:
    """For each way its best wall and processor seconds, and whether its frames are those of the first way."""
    indices = segment_centers(count, frames)
    found: dict[str, dict[str, Any]] = {}
    reference: np.ndarray | None = None
    for _ in range(repeats):
        for name in ways:
            best = found.get(name, {"seconds": float("inf"), "processor_seconds": float("inf")})
            if SLOW_SECONDS < best["seconds"] < float("inf"):
                continue
            wall, processor = time.perf_counter(), time.process_time()
            answer = WAYS[name](str(path), indices)
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            if name not in found:
                reference = answer if reference is None else reference
                best["same_frames"] = bool(np.array_equal(answer, reference))
            best["seconds"] = min(best["seconds"], wall)
            best["processor_seconds"] = min(best["processor_seconds"], processor)
            found[name] = best
            del answer
    return found


def peak_megabytes(way: str, path: Path, frames: int, count: int) -> int | None:
    """The most memory that a process held which did this and nothing else, imports included."""
    command = [sys.executable, __file__, "--alone", way, str(path), str(frames), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(done.stdout.split()[-1]) if done.returncode == 0 else None


def installed(ways: list[str], path: Path) -> list[str]:
    """Those of the ways that give a frame here."""
    able = []
    for name in ways:
        try:
            WAYS[name](str(path), [0])
        except Exception as error:  # whatever is wrong with it, it is left out and named
            print(f"left out: {name} ({str(error).splitlines()[0]})", file=sys.stderr)
        else:
            able.append(name)
    return able


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=VIDEOS, action="append")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        way, path, frames, count = arguments.alone
        WAYS[way](path, segment_centers(int(count), int(frames)))
        # Not ru_maxrss: a process inherits that of the one that started it.
        status = Path("/proc/self/status").read_text()
        print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
        return
    if arguments.videos is None:
        parser.error("--videos: where the drawn videos are kept")
    rows = []
    for title in arguments.only or VIDEOS:
        name, seconds, size, preset = VIDEOS[title]
        path = arguments.videos / name
        if not path.exists():
            arguments.videos.mkdir(parents=True, exist_ok=True)
            draw(path, seconds, size, preset)
        ways = installed(list(WAYS), path)
        count = seconds * RATE
        for frames in (8, 16, 32):
            found = measure(path, frames, count, ways, repeats=arguments.repeats if seconds < 600 else 2)
            fastest = min(entry["seconds"] for name, entry in found.items() if not name.startswith("clipact"))
            print(f"\n{title}, {frames} frames")
            for way, entry in found.items():
                entry["megabytes"] = peak_megabytes(way, path, frames, count)
                entry["of_fastest_other"] = entry["seconds"] / fastest
                print(
                    f"  {way:<24}{entry['seconds'] * 1e3:9.0f} ms {entry['processor_seconds'] * 1e3:9.0f} ms processor"
                    f"{entry['of_fastest_other']:7.2f} x {entry['megabytes'] or 0:6} MB"
                    f"{'' if entry['same_frames'] else '   other frames'}",
                    flush=True,
                )
                rows.append({"video": title, "frames": frames, "way": way, **entry})
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
