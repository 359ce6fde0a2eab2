"""What reading over a packet costs, and what a jump costs, by container: how many packets a jump is worth.

    python eval/benchmarks/seek_cost.py [--repeats 5]

Draws two minutes of 25 frames a second, a key frame each second, as MP4, Matroska, FLV, MPEG-TS and WebM. Times reading
all packets, and jumping to each key frame and reading its packet; both are the best of the repeats. Their ratio is what
`_PACKETS_A_JUMP` in clipact/video/decode_pyav.py stands for. A minute on two cores.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from clipact.video.decode_pyav import PyavVideo
from clipact.video.media import Media

CONTAINERS = {"mp4": "libx264", "mkv": "libx264", "flv": "libx264", "ts": "libx264", "webm": "libvpx-vp9"}
RATE, SECONDS = 25, 120


def draw(path: Path, codec: str) -> None:
    """Grain over grey, so that a packet has some 4 kB, as at 720p; what is in it does not matter here."""
    options = {"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx-vp9" else {"preset": "ultrafast"}
    generator = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.time_base = Fraction(1, RATE)
        stream.codec_context.gop_size = RATE
        stream.codec_context.bit_rate = 8 * 4000 * RATE
        for number in range(RATE * SECONDS):
            picture = generator.integers(100, 140, (96, 128, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def best(work: Callable[[], int], repeats: int) -> float:
    """Microseconds a unit of work, of which `work` returns how many it did."""
    found = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        count = work()
        found = min(found, (time.perf_counter() - began) / count * 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{'container':<12}{'a packet':>10}{'a jump':>10}   packets a jump")
    with tempfile.TemporaryDirectory() as folder:
        for ending, codec in CONTAINERS.items():
            path = Path(folder) / f"drawn.{ending}"
            draw(path, codec)
            media = Media(f"file:{path}", name=ending)
            keys = PyavVideo(media).timeline().keys

            def read(media: Media = media) -> int:
                media.rewind()
                return sum(1 for _ in media.packets())

            def jump(media: Media = media, keys=keys) -> int:
                for key in keys:
                    media.seek(key.tick)
                    next(media.packets())
                return len(keys)

            packet, leap = best(read, arguments.repeats), best(jump, arguments.repeats)
            media.close()
            held_bytes = path.stat().st_size // (RATE * SECONDS)
            row = f"{ending:<12}{packet:>7.1f} us{leap:>7.1f} us   {leap / packet:<14.1f}  {held_bytes} bytes a packet"
            print(row, flush=True)


if __name__ == "__main__":
    main()
