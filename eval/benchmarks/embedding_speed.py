"""How much of two cores the embedding engine uses, beside a straight loop and an earlier checkout.

    python eval/benchmarks/embedding_speed.py --data DIR [--before CHECKOUT] [--windows 500] [--repeats 3]
        [--height 1080]

The windows are stretches of 2 to 10 s of the videos below DIR, drawn with a seed, none twice; `--height` makes copies
of that height first (H.264, crf 20), of the first 12 videos. Model mini in fp32, no cache. Each arm is a process of its
own, which imports, loads the model and embeds one window before the clock starts; arms alternate, and the best repeat
of each counts.

    loop      decode and encode one window after the other, decoder and model on one thread: CPU seconds of either
    engine    `embed_clips` with its defaults: wall and CPU seconds
    classify  of the checkout: what its `clipact classify` did, one video ahead in a thread
    evaluate  of the checkout: what its `clipact eval` did

Printed as JSON: wall over (decode + encode CPU seconds) / cores, the ratio to each arm of the checkout, and the largest
difference of an embedding from the loop's.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SUFFIXES = {".mp4", ".avi", ".mkv", ".mov", ".webm"}
ROOT = Path(__file__).resolve().parents[2]


def loop(model, windows):
    """Embed on one thread; CPU seconds by what they were spent on."""
    import torch

    from clipact.models.dual_encoder import prepare_views
    from clipact.video.load import load_clips

    torch.set_num_threads(1)
    spec = model.encoder.spec
    seconds, vectors = {"decode": 0.0, "encode": 0.0}, []
    for path, start, end in windows:
        begun = time.process_time()
        (clip,) = load_clips(path, spec, start_seconds=start, end_seconds=end, decoder_threads=1)
        decoded = time.process_time()
        with torch.inference_mode():
            frames = prepare_views([clip.frames], spec, device=model.encoder.log_scale.device)
            vectors.append(model.encoder.encode_video(frames)[0].numpy())
        seconds["decode"] += decoded - begun
        seconds["encode"] += time.process_time() - decoded
    return vectors, seconds


def engine(model, windows):
    """Embed with the engine."""
    from clipact.embed.clip_source import ClipSource
    from clipact.embed.embed_clips import embed_clips

    rows = [ClipSource(source=path, name=path, start_seconds=start, end_seconds=end) for path, start, end in windows]
    return [found.embeddings[0] for found in embed_clips(rows, model.clip_encoder())], {}


def classify(model, windows):
    """Embed as `classify` of the earlier checkout did."""
    from clipact.classify.base import frames_of
    from clipact.models.dual_encoder import mean_view
    from clipact.video.load import decode_one, work_ahead

    spec = model.encoder.spec

    def decode(window):
        return decode_one(window[0], spec, start_seconds=window[1], end_seconds=window[2])

    decoded = work_ahead(decode, windows, depth=2)
    return [mean_view(model.encoder.embed_views(frames_of(one), spec))[0].numpy() for one in decoded], {}


def evaluate(model, windows):
    """Embed as `eval` of the earlier checkout did."""
    from clipact.evaluate import EvalOptions, EvalSample
    from clipact.evaluate.encode import encode_samples
    from clipact.evaluate.encoder_adapter import make_clip_encoder
    from clipact.evaluate.samples import as_samples

    samples = [
        EvalSample(name=f"{number}", path=Path(path), start_seconds=start, end_seconds=end)
        for number, (path, start, end) in enumerate(windows)
    ]
    encoder = make_clip_encoder(model, model.encoder.spec)
    return [one.vector for one in encode_samples(as_samples(samples), encoder, EvalOptions(), {})], {}


ARMS = {"loop": loop, "engine": engine, "classify": classify, "evaluate": evaluate}


def run_arm(name, given, out):
    """Run one arm in this process."""
    from clipact.models.zoo import load_model

    model = load_model("mini", device="cpu", defer_text=True)
    windows = json.loads(given.read_text())
    ARMS[name](model, windows[:1])
    wall, cpu = time.perf_counter(), time.process_time()
    vectors, seconds = ARMS[name](model, windows)
    seconds |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    np.save(out, np.stack(vectors))
    print(json.dumps(seconds))


def draw_windows(data, count):
    """Distinct stretches of the videos below a folder."""
    from clipact.errors import VideoError
    from clipact.video.inspect import inspect

    lasting = {}
    for path in sorted(path for path in data.rglob("*") if path.suffix.lower() in SUFFIXES):
        try:
            lasting[str(path)] = inspect(path).duration_seconds
        except VideoError:
            continue
    paths, rng, windows = [path for path, seconds in lasting.items() if seconds > 2.1], random.Random(0), {}
    while len(windows) < count:
        path = rng.choice(paths)
        length = rng.uniform(2, min(10, lasting[path]))
        start = round(rng.uniform(0, lasting[path] - length), 2)
        windows[path, start, round(start + length, 2)] = None
    return [list(window) for window in windows]


def scale(data, height, folder):
    """Copies of the first videos at another height."""
    paths = sorted(path for path in data.rglob("*.mp4"))
    for number, path in enumerate(paths[:: max(1, len(paths) // 12)][:12]):
        command = ["ffmpeg", "-v", "error", "-i", path, "-vf", f"scale=-2:{height}", "-crf", "20", "-an"]
        subprocess.run([*command, folder / f"{number:02}.mp4"], check=True)
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--windows", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--height", type=int)
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--given", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.arm:
        run_arm(given.arm, given.given, given.out)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data = given.data if given.height is None else scale(given.data, given.height, folder)
        windows = draw_windows(data, given.windows)
        (folder / "windows.json").write_text(json.dumps(windows))
        arms = {"loop": ROOT, "engine": ROOT}
        if given.before:
            arms |= {"classify": given.before.resolve(), "evaluate": given.before.resolve()}
        best, vectors = {}, {}
        for _ in range(given.repeats):
            for name, checkout in arms.items():
                out = folder / f"{name}.npy"
                words = [sys.executable, __file__, "--arm", name, "--given", folder / "windows.json", "--out", out]
                environment = os.environ | {"PYTHONPATH": str(checkout)}
                done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
                seconds = json.loads(done.stdout.splitlines()[-1])
                vectors[name] = np.load(out)
                if name not in best or seconds["wall"] < best[name]["wall"]:
                    best[name] = seconds
                print(name, seconds, file=sys.stderr, flush=True)
    cores = len(os.sched_getaffinity(0))
    work = best["loop"]["decode"] + best["loop"]["encode"]
    found = {
        "windows": len(windows),
        "videos": len({path for path, _, _ in windows}),
        "cores": cores,
        "seconds": best,
        "engine wall / (decode + encode CPU s / cores)": best["engine"]["wall"] / (work / cores),
        "largest difference": {name: float(np.abs(one - vectors["loop"]).max()) for name, one in vectors.items()},
    }
    for name in ("classify", "evaluate"):
        if name in best:
            found[f"{name} before / engine"] = best[name]["wall"] / best["engine"]["wall"]
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
