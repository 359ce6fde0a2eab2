"""What eight frames of a long film cost: processor seconds and bytes read, beside an earlier checkout.

    python eval/benchmarks/long_video.py --videos DIR --before CHECKOUT [--hours 6] [--repeats 3] [--json FILE]

Draws a film as MP4 and Matroska into DIR with the ffmpeg command when it is not there (one minute of grain, 192 x 108,
30 frames a second, H.264 with B-frames, repeated; 460 MB for six hours), and two hours of it as a raw H.264 stream.
Loads eight frames of all of it, and eight of ten seconds near its end, each in a process of its own with an empty
cache, this checkout and the earlier one in turn; the best of the repeats. Both must give the same frames. The raw
stream takes a minute of processor time a load: it is measured once, unless --repeats-raw says more.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[2]
MINUTE = "-f lavfi -i testsrc2=size=192x108:rate=30:duration=60 -vf noise=alls=12:allf=t -c:v libx264 -crf 26"
RAW_HOURS = 2

# What one process does: its seconds and bytes are those of loading alone, without imports.
LOAD = """
import hashlib, json, sys, time
from clipact.video.load import load_clip
def read_bytes():
    return int(open("/proc/self/io").read().split()[1])
path, start, end = sys.argv[1], *(None if word == "-" else float(word) for word in sys.argv[2:])
began, before = time.process_time(), read_bytes()
clip = load_clip(path, start, end)
seconds, read = time.process_time() - began, read_bytes() - before
frames = [(stamp.index, stamp.seconds) for stamp in clip.stamps]
told = {"seconds": seconds, "bytes": read, "frames": frames, "pixels": hashlib.sha256(clip.frames).hexdigest()}
print(json.dumps(told))
"""


def ffmpeg(*words: str | Path) -> None:
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, words)], check=True)


def draw(folder: Path, hours: float) -> dict[str, Path]:
    """The films by name; those that are there already are not drawn again."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{hours:g}h"
    films = {"mp4": folder / f"{name}.mp4", "mkv": folder / f"{name}.mkv", "h264": folder / f"{RAW_HOURS}h.h264"}
    if not films["mp4"].exists():
        minute = folder / "minute.mp4"
        ffmpeg(*MINUTE.split(), "-pix_fmt", "yuv420p", minute)
        ffmpeg("-stream_loop", round(hours * 60) - 1, "-i", minute, "-c", "copy", films["mp4"])
    if not films["mkv"].exists():
        ffmpeg("-i", films["mp4"], "-c", "copy", films["mkv"])
    if not films["h264"].exists():
        ffmpeg("-i", films["mp4"], "-t", RAW_HOURS * 3600, "-c", "copy", films["h264"])
    return films


def load(checkout: Path, path: Path, span: tuple[str, str]) -> dict[str, Any]:
    """What a process finds that loads eight frames with the clipact of this checkout."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"PYTHONPATH": str(checkout), "CLIPACT_CACHE": cache}
        command = [sys.executable, "-c", LOAD, str(path), *span]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=cache)
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--before", type=Path, required=True, help="an earlier checkout")
    parser.add_argument("--hours", type=float, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--repeats-raw", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    end = arguments.hours * 3600 - 60
    spans = {"all": ("-", "-"), "near the end": (f"{end:g}", f"{end + 10:g}")}
    rows = []
    print(f"{'film':<8}{'asked for':<15}{'before':>22}{'now':>22}   seconds    bytes")
    for ending, path in draw(arguments.videos, arguments.hours).items():
        for title, span in spans.items() if ending != "h264" else [("all", ("-", "-"))]:
            found: dict[str, list[dict[str, Any]]] = {"before": [], "now": []}
            for _ in range(arguments.repeats_raw if ending == "h264" else arguments.repeats):
                found["before"].append(load(arguments.before.resolve(), path, span))
                found["now"].append(load(HERE, path, span))
            same = len({json.dumps([one["frames"], one["pixels"]]) for ones in found.values() for one in ones}) == 1
            best = {
                who: {what: min(one[what] for one in ones) for what in ("seconds", "bytes")}
                for who, ones in found.items()
            }
            ratio = {what: best["now"][what] / best["before"][what] for what in ("seconds", "bytes")}
            cells = "".join(f"{one['seconds']:>10.2f} s{one['bytes'] / 1e6:>7.1f} MB" for one in best.values())
            print(
                f"{ending:<8}{title:<15}{cells}{ratio['seconds']:>10.3f}{ratio['bytes']:>9.3f}"
                f"{'' if same else '   other frames'}",
                flush=True,
            )
            rows.append({"film": ending, "asked for": title, **best, "ratio": ratio, "same frames": same})
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
