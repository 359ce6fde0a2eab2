"""What a model costs beside another one through the same code: milliseconds and memory a clip, load time, size.

    python eval/benchmarks/model_cost.py [--models mini open_clip:ViT-B-32@FILE] [--rounds 10] [--json]

Without --models it is mini beside open_clip's ViT-B/32, whose weights are drawn here: their values cost nothing.

  loaded   seconds from a process that has imported torch to a model that can answer, its library's import included, and
           resident megabytes then; the best of three processes
  seen     milliseconds for one clip of eight frames that lie ready, by precision (zoo.load), and megabytes that the
           first such clip takes at most above what lay in memory, in a process of its own; Linux alone says those
  file     milliseconds from an example's file to the answer among three labels, by precision
  size     megabytes on disk

Ways alternate in one process, the best of --rounds counts. How far bf16 goes from fp32 is said as the
cosine of the two embeddings.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tower_speed import memory_kilobytes, peak_megabytes, seconds

VIDEO = Path(__file__).parent.parent.parent / "examples/reading_newspaper.mp4"
LABELS = ["read", "drink", "walk"]
WAYS = ("fp32", "bf16")


def loaded(name):
    """Seconds to load a model in this process, its resident megabytes, and those of a first clip."""
    begun = time.perf_counter()
    from clipact.models import zoo

    model = zoo.load_model(name, device="cpu")
    took = time.perf_counter() - begun
    resident = memory_kilobytes("VmRSS") / 1024
    clip = ready(model)
    return {"seconds": took, "resident": resident, "clip": peak_megabytes(lambda: model.encoder.encode_video(clip))}


def ready(model):
    """A clip as the model's own preparation leaves it."""
    from clipact.models.dual_encoder import normalise_frames
    from clipact.video.load import load_clip

    spec = model.encoder.spec.with_frames(8)
    return normalise_frames(load_clip(VIDEO, spec=spec).frames, spec)[None]


def size_of(name):
    """Megabytes on disk: a folder's files, or the file behind @; None for what a hub keeps."""
    from clipact.models import zoo

    if (folder := zoo.find_folder(name)) is not None:
        return sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    file = Path(name.rpartition("@")[2])
    return file.stat().st_size / 1e6 if file.is_file() else None


def timed(names, rounds):
    """Milliseconds of each way of each model, and how far bf16 turns an embedding."""
    import clipact
    from clipact.models import zoo

    ways, found = {}, {name: {"seen": {}, "file": {}} for name in names}
    for name in names:
        models = {way: zoo.load_model(name, device="cpu", precision=way) for way in WAYS}
        clip = ready(models["fp32"])
        seen = [models[way].encoder.encode_video(clip).float() for way in WAYS]
        found[name]["cosine"] = torch.cosine_similarity(*seen).item()
        for way, model in models.items():
            classifier = clipact.ZeroShotClassifier(model, LABELS)
            ways[name, "seen", way] = lambda model=model, clip=clip: model.encoder.encode_video(clip)
            ways[name, "file", way] = lambda classifier=classifier: classifier.classify(VIDEO)
    best = {way: seconds(work) for way, work in ways.items()}
    for turn in range(rounds):
        for way in list(ways) if turn % 2 else reversed(ways):
            best[way] = min(best[way], seconds(ways[way]))
    for (name, kind, way), value in best.items():
        found[name][kind][way] = 1e3 * value
    return found


def ask(name):
    """`loaded` in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--one", name], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def drawn(folder):
    """A file with random weights of open_clip's ViT-B/32, as zoo.load names it."""
    import open_clip
    from safetensors.torch import save_file

    file = Path(folder) / "ViT-B-32.safetensors"
    save_file(open_clip.create_model("ViT-B-32").state_dict(), file)
    return f"open_clip:ViT-B-32@{file}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        if given.one:
            print(json.dumps(loaded(given.one)))
            return
        names = given.models or ["mini", drawn(folder)]
        found = timed(names, given.rounds)
        for name in names:
            tries = [ask(name) for _ in range(3)]
            found[name] |= {key: min(one[key] for one in tries) for key in ("seconds", "resident")}
            found[name] |= {"clip": max(one["clip"] for one in tries), "disk": size_of(name)}
    if given.json:
        print(json.dumps({"threads": torch.get_num_threads(), "models": found}, indent=2))
        return
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; one clip of eight frames\n")
    print(
        "| model | seen, ms | bf16, ms | from a file, ms | bf16, ms | its cosine | loaded, s | resident, MB |", end=""
    )
    print(" a clip, MB | on disk, MB |\n|---|---|---|---|---|---|---|---|---|---|")
    for name, one in found.items():
        milliseconds = " | ".join(f"{one[kind][way]:.0f}" for kind in ("seen", "file") for way in WAYS)
        print(
            f"| {name.rpartition('@')[0] or name} | {milliseconds} | {one['cosine']:.5f} | {one['seconds']:.2f} |",
            end="",
        )
        disk = "" if one["disk"] is None else f"{one['disk']:.0f}"
        print(f" {one['resident']:.0f} | {one['clip']:.0f} | {disk} |")


if __name__ == "__main__":
    main()
