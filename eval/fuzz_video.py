"""Fuzzes decoding: spoilt files in; frames or a ClipactError out, in time and in memory, or it is a finding.

    python eval/fuzz_video.py --count 2000

Ten plain kinds of file are drawn, and those of odd_videos.py, then spoilt at random (bits, bytes, numbers, runs, cuts,
splices). Each is loaded in a process of its own: by turns as it would be, and by the index of its container, which is
else for long films. Findings (a crash, another exception, too slow, too large) are kept with --keep DIR; the counts
are printed as JSON. The same --seed spoils the same files in the same way, if there is one of each kind at least.
"""

import argparse
import json
import os
import resource
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import av
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # also when the tests import this file

from odd_videos import ODD, draw_odd

from clipact.clip_spec import ClipSpec
from clipact.errors import ClipactError
from clipact.video import container_index
from clipact.video.decode_torchcodec import import_torchcodec
from clipact.video.load import load_clip
from clipact.video.ways import DECODERS

TIME_LIMIT_SECONDS = 10.0
MEMORY_LIMIT_BYTES = 10**9

SEEDS = {
    "h264.mp4": ("libx264", "yuv420p"),
    "h264.mkv": ("libx264", "yuv420p"),
    "h264.ts": ("libx264", "yuv420p"),
    "h264.flv": ("libx264", "yuv420p"),
    "hevc.mp4": ("libx265", "yuv420p10le"),
    "vp9.webm": ("libvpx-vp9", "yuv420p"),
    "mpeg4.avi": ("mpeg4", "yuv420p"),
    "mjpeg.avi": ("mjpeg", "yuvj420p"),
    "mpeg2.mpg": ("mpeg2video", "yuv420p"),
    "moving.gif": (None, None),
}
KINDS = (*SEEDS, *ODD)


def draw_seed(folder: Path, name: str) -> bytes:
    """A second of moving stripes in the codec and container that the name says; or an odd file."""
    if name in ODD:
        return draw_odd(folder, name).read_bytes()
    path = folder / name
    codec, pixels = SEEDS[name]
    rows, columns = np.mgrid[:96, :128]
    pictures = [np.stack([rows + 5 * i, columns + 3 * i, rows ^ columns], -1).astype(np.uint8) for i in range(25)]
    if codec is None:
        first, *others = map(Image.fromarray, pictures)
        first.save(path, save_all=True, append_images=others, duration=40)
        return path.read_bytes()
    with av.open(str(path), "w") as container:
        options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, pixels
        stream.codec_context.gop_size = 10
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


def spoil(seed: bytes, others: list[bytes], generator: np.random.Generator) -> bytes:
    """The file with one to four faults."""
    data = bytearray(seed)
    for _ in range(generator.integers(1, 5)):
        place = int(generator.integers(len(data)))
        length = int(2 ** generator.uniform(0, 10))
        match generator.integers(8):
            case 0:  # bits
                for at in generator.integers(len(data), size=length // 8 + 1):
                    data[at] ^= 1 << generator.integers(8)
            case 1:  # bytes
                data[place : place + length] = generator.bytes(len(data[place : place + length]))
            case 2:  # a number that programs stumble over
                number = int(
                    generator.choice([0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
                )
                size = min(4, len(data) - place)
                data[place : place + size] = struct.pack(">I", number)[4 - size :]
            case 3:  # a hole
                data[place : place + length] = bytes(len(data[place : place + length]))
            case 4:  # something missing
                del data[place : place + length]
            case 5:  # something twice
                data[place:place] = data[place : place + length]
            case 6:  # a cut
                del data[max(place, 1) :]
            case 7:  # a splice
                other = others[generator.integers(len(others))]
                start = int(generator.integers(len(other)))
                data[place : place + length] = other[start : start + length]
        if not data:
            data = bytearray(b"\0")
    return bytes(data)


def judge(path: Path, decoder: str = "pyav", *, by_index: bool = False) -> tuple[str, float, int]:
    """What loading the file in a process of its own comes to, the seconds it took, and its peak memory in bytes."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        if by_index:
            container_index.LEAST_FRAMES = 0
        os._exit(_load(path, decoder))
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        seconds = time.monotonic() - began
        if done:
            break
        if seconds > TIME_LIMIT_SECONDS:
            os.kill(child, signal.SIGKILL)
            os.wait4(child, 0)
            return "too slow", seconds, 0
        time.sleep(0.002)
    memory = usage.ru_maxrss * 1024
    if os.WIFSIGNALED(status):
        return f"crash: {signal.Signals(os.WTERMSIG(status)).name}", seconds, memory
    if memory > MEMORY_LIMIT_BYTES:
        return "too large", seconds, memory
    return ("frames", "error", "other exception")[os.WEXITSTATUS(status)], seconds, memory


def _load(path: Path, decoder: str) -> int:
    # Four times the limit, so that what needs too much is measured rather than killed.
    resource.setrlimit(resource.RLIMIT_AS, (4 * MEMORY_LIMIT_BYTES,) * 2)
    try:
        load_clip(path, spec=ClipSpec(size=(64, 64)), decoder=decoder)
    except ClipactError as error:
        return 1 if str(path) in str(error) else 2
    except BaseException:
        return 2
    return 0


def fuzz(count: int, *, seed: int = 0, keep: Path | None = None, decoder: str = "pyav") -> dict[str, object]:
    """The counts of what `count` spoilt files came to, with the slowest and the largest."""
    generator = np.random.default_rng(seed)
    counts: Counter[str] = Counter()
    by_kind: dict[str, Counter[str]] = {name: Counter() for name in KINDS}
    slowest, largest = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        seeds = {name: draw_seed(Path(folder), name) for name in KINDS[:count]}
        for number in range(count):
            turn, kind = divmod(number, len(KINDS))
            name = KINDS[kind]
            path = Path(folder) / f"{number}-{name}"
            path.write_bytes(spoil(seeds[name], list(seeds.values()), generator))
            verdict, seconds, memory = judge(path, decoder, by_index=turn % 2 == 1)
            counts[verdict] += 1
            by_kind[name][verdict] += 1
            slowest, largest = max(slowest, seconds), max(largest, memory)
            if keep is not None and verdict not in ("frames", "error"):
                keep.mkdir(parents=True, exist_ok=True)
                path.rename(keep / path.name)
                print(f"{path.name}: {verdict}", file=sys.stderr)
            path.unlink(missing_ok=True)
    return {
        "files": count,
        "seed": seed,
        "decoder": decoder,
        "verdicts": dict(counts),
        "by kind": {name: dict(verdicts) for name, verdicts in by_kind.items()},
        "slowest seconds": round(slowest, 2),
        "largest megabytes": largest // 10**6,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where findings are kept")
    parser.add_argument("--decoder", default="pyav", choices=DECODERS)
    arguments = parser.parse_args()
    if arguments.decoder == "torchcodec":
        import_torchcodec()  # once, and not in each process
    found = fuzz(arguments.count, seed=arguments.seed, keep=arguments.keep, decoder=arguments.decoder)
    print(json.dumps(found, indent=1))
    return 0 if set(found["verdicts"]) <= {"frames", "error"} else 1


if __name__ == "__main__":
    sys.exit(main())
