"""Peak resident memory of the embedding engine by the number of windows, of frames a clip, and of clips a video.

    python eval/benchmarks/embedding_memory.py --data DIR [--windows 500 2500 5000] [--frames 8 2000 20000]
        [--clips 1 50 500] [--video FILE] [--model mini]

The windows are stretches of 2 to 10 s of the videos below DIR, drawn with a seed, none twice; no cache. Frames and
clips are asked for of one video, the longest below DIR unless another is named. Each line is a process of its own;
`after loading` is its peak when the model is loaded and one clip was embedded. Results are counted and let go.

Of one video the features of all that was asked for are held until its embedding is made: `features` says how much.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from embedding_speed import ROOT, SUFFIXES, draw_windows


def peak_megabytes():
    """Of this process, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def embed(given):
    """Embed what is given, and print the peaks."""
    from clipact.embed.clip_source import ClipSource
    from clipact.embed.embed_clips import embed_clips
    from clipact.models.zoo import load_model

    model = load_model(given.model, device="cpu", defer_text=True)
    windows = json.loads(given.windows_file.read_text())
    rows = [ClipSource(source=path, name=path, start_seconds=start, end_seconds=end) for path, start, end in windows]
    list(embed_clips(rows[:1], model.clip_encoder()))
    loaded, begun, held = peak_megabytes(), time.perf_counter(), 0
    encoder = model.clip_encoder(model.spec.with_frames(given.one_frames), clips=given.one_clips or 1)
    head = encoder.head

    def measuring(features):
        nonlocal held
        held = max(held, features.nbytes)
        return head(features)

    done = sum(found.error is None for found in embed_clips(rows, replace(encoder, head=measuring)))
    peak = {"after loading": round(loaded), "peak": round(peak_megabytes()), "features": round(held / 2**20)}
    print(json.dumps({"rows": done, "seconds": round(time.perf_counter() - begun, 1), "megabytes": peak}))


def longest(data):
    """The video below the folder that lasts longest."""
    from clipact.errors import VideoError
    from clipact.video.inspect import inspect

    def seconds(path):
        try:
            return inspect(path).duration_seconds or 0.0
        except VideoError:
            return 0.0

    return max((path for path in sorted(data.rglob("*")) if path.suffix.lower() in SUFFIXES), key=seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--windows", type=int, nargs="*", default=[500, 2500, 5000])
    parser.add_argument("--frames", type=int, nargs="*", default=[8, 2000, 20_000])
    parser.add_argument("--clips", type=int, nargs="*", default=[1, 50, 500])
    parser.add_argument("--video", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--windows-file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one-frames", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--one-clips", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.windows_file:
        embed(given)
        return
    video = given.video or longest(given.data)
    cases = [("windows", count, []) for count in given.windows]
    cases += [("frames", count, ["--one-frames", count]) for count in given.frames]
    cases += [("clips", count, ["--one-clips", count]) for count in given.clips]
    found = []
    with tempfile.TemporaryDirectory() as place:
        listed = Path(place) / "windows.json"
        for kind, count, more in cases:
            windows = draw_windows(given.data, count) if kind == "windows" else [[str(video), None, None]]
            listed.write_text(json.dumps(windows))
            words = [sys.executable, __file__, "--windows-file", listed, "--model", given.model, *more]
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            done = subprocess.run(list(map(str, words)), env=environment, check=True, capture_output=True, text=True)
            found.append({"of": kind, "count": count, **json.loads(done.stdout.splitlines()[-1])})
            print(found[-1], file=sys.stderr, flush=True)
    print(json.dumps({"video": str(video), "cases": found}, indent=2))


if __name__ == "__main__":
    main()
