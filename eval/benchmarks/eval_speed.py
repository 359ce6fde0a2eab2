"""Clips a second: the runner beside a plain loop over the same files with the same decoder and model, in one run.

    python eval/benchmarks/eval_speed.py --data DIR [--model mini] [--rounds 3] [--clips 120] [--json]

DIR holds clips/ut_interaction.csv: 120 real clips. The plain loop decodes a clip, encodes it with all cores, and goes
to the next; the runner's workers decode and encode, a core each. Rounds alternate, the best of each counts. Then the
runner again from its store. Last, where the time of a clip goes: what one core needs to decode it, and what encoding
takes with one thread and with all. The runner cannot do better than (decode + encode, one thread) / cores.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from clipact.cache import Cache
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.evaluate import EvalOptions, evaluate, manifest_protocol, read_samples
from clipact.models.dual_encoder import normalise_frames
from clipact.video.load import load_clips


@torch.inference_mode()
def plain(classifier, samples):
    """Logits of each clip, one clip after the other."""
    rows = []
    for item in samples.items:
        (clip,) = load_clips(item.path, classifier.spec)
        video = classifier.model.encoder.encode_video(normalise_frames(clip.frames, classifier.spec)[None])
        rows.append(classifier.logits(F.normalize(video, dim=-1).numpy())[0])
    return np.stack(rows)


def timed(work):
    """Seconds on the wall, and what the work gave."""
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def busy(work):
    """Seconds on the wall and seconds of all cores together: the second does not hang on who else uses the machine."""
    cores = time.process_time()
    seconds, result = timed(work)
    return seconds, time.process_time() - cores, result


def profile(classifier, samples, threads):
    """Seconds a clip: decoding, and encoding with one thread and with `threads`."""
    items = samples.items[:24]
    decode, clips = timed(lambda: [load_clips(item.path, classifier.spec)[0].frames for item in items])
    spent = {"decode, one thread": decode / len(items)}
    videos = [normalise_frames(frames, classifier.spec)[None] for frames in clips]
    for count in sorted({1, threads}):
        torch.set_num_threads(count)
        with torch.inference_mode():
            seconds = min(
                timed(lambda: [classifier.model.encoder.encode_video(video) for video in videos])[0] for _ in range(2)
            )
        spent[f"encode, {count} threads"] = seconds / len(items)
    torch.set_num_threads(threads)
    return spent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=120, help="the first so many alone, to try it out")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    samples = read_samples(manifest_protocol(words.data / "clips/ut_interaction.csv"), words.data / "clips")
    samples = replace(samples, items=samples.items[: words.clips])
    best, spent = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(folder)
        classifier = ZeroShotClassifier.load(words.model, labels=samples.labels, device="cpu", cache=cache)
        options = {"workers": words.workers}
        ways = {
            "plain loop": lambda: plain(classifier, samples),
            "runner": lambda: evaluate(classifier, samples, options=EvalOptions(**options)).scores,
        }
        found = {}
        for _ in range(words.rounds):
            for name, work in ways.items():
                seconds, cores, found[name] = busy(work)
                best[name] = min(best.get(name, seconds), seconds)
                spent[f"{name}, all cores"] = min(spent.get(f"{name}, all cores", cores), cores)
        evaluate(classifier, samples, options=EvalOptions(cache=cache, **options))
        for _ in range(words.rounds):
            seconds, found["from the store"] = timed(
                lambda: evaluate(classifier, samples, options=EvalOptions(cache=cache, **options)).scores
            )
            best["from the store"] = min(best.get("from the store", seconds), seconds)
        apart = float(np.abs(found["plain loop"] - found["runner"]).max())
        spent = {name: seconds / len(samples) for name, seconds in spent.items()}
        spent |= profile(classifier, samples, torch.get_num_threads())
    table = {
        "clips": len(samples),
        "threads": torch.get_num_threads(),
        "clips a second": {name: len(samples) / seconds for name, seconds in best.items()},
        "times the plain loop": {name: best["plain loop"] / seconds for name, seconds in best.items()},
        "largest difference of a logit": apart,
        "milliseconds a clip": {name: 1000 * seconds for name, seconds in spent.items()},
    }
    if words.json:
        print(json.dumps(table, indent=2))
        return
    for name, seconds in best.items():
        print(f"{name:<16}{len(samples) / seconds:9.1f} clips/s{best['plain loop'] / seconds:9.2f} x")
    print(f"largest difference of a logit {apart:.1e}")
    for name, seconds in spent.items():
        print(f"{name:<22}{1000 * seconds:7.0f} ms a clip")


if __name__ == "__main__":
    main()
