"""Three processes on one cold cache, the same windows: how many clips are encoded in all, and are the rows the same?

    python eval/benchmarks/embedding_shared_cache.py --data DIR [--windows 200] [--processes 3] [--model mini]

The windows are stretches of 2 to 10 s of the videos below DIR, drawn with a seed, none twice. The processes load the
model and begin together. Each batch that is encoded is written down, by a hash of its pictures, in one file. First one
process does the same alone, on another cold cache. Exit code 1 when rows differ.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from embedding_speed import ROOT, draw_windows


def embed(given):
    """Embed the windows, as one of the processes."""
    from clipact.cache import Cache
    from clipact.embed.clip_source import ClipSource
    from clipact.embed.embed_clips import embed_clips
    from clipact.embed.options import EmbedOptions
    from clipact.models.zoo import load_model

    encoder = load_model(given.model, device="cpu", defer_text=True).clip_encoder()
    encode = encoder.encode
    encode(np.zeros((1, encoder.spec.frames, *encoder.spec.size, 3), np.uint8))  # the first call takes longer
    counts = os.open(given.counts, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def counting(clips):
        os.write(counts, f"{hashlib.sha256(clips.tobytes()).hexdigest()}\n".encode())
        return encode(clips)

    windows = json.loads(given.windows_file.read_text())
    rows = [ClipSource(source=path, name=path, start_seconds=start, end_seconds=end) for path, start, end in windows]
    print("ready", flush=True)
    sys.stdin.readline()
    begun = time.perf_counter()
    options = EmbedOptions(cache=Cache(given.cache))
    found = list(embed_clips(rows, replace(encoder, encode=counting), options))
    seconds = time.perf_counter() - begun
    np.save(given.out, np.stack([one.embeddings[0] for one in found]))
    print(json.dumps({"seconds": round(seconds, 2)}), flush=True)


def together(count, folder, words):
    """Seconds of each of so many processes on one cold cache, what they encoded, and their rows."""
    folder.mkdir()
    processes = []
    for number in range(count):
        more = ["--cache", folder / "cache", "--counts", folder / "counts", "--out", folder / f"{number}.npy"]
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, "--child", *map(str, [*words, *more])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        )
    for process in processes:
        assert process.stdout.readline() == "ready\n", "it did not get as far as its first window"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    seconds = [json.loads(process.communicate()[0])["seconds"] for process in processes]
    encoded = Counter((folder / "counts").read_text().split())
    return seconds, encoded, [np.load(folder / f"{number}.npy") for number in range(count)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    for name in ("--windows-file", "--cache", "--counts", "--out"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        embed(given)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "windows.json").write_text(json.dumps(draw_windows(given.data, given.windows)))
        words = ["--model", given.model, "--windows-file", folder / "windows.json"]
        alone, once, (expected,) = together(1, folder / "alone", words)
        seconds, encoded, rows = together(given.processes, folder / "together", words)
    found = {
        "windows": given.windows,
        "processes": given.processes,
        "batches encoded": {"alone": sum(once.values()), "together": sum(encoded.values())},
        "distinct batches": {"alone": len(once), "together": len(encoded)},
        "encoded more than once": sum(count - 1 for count in encoded.values()),
        "seconds": {"alone": alone, "together": seconds},
        "rows identical": all(one.tobytes() == expected.tobytes() for one in rows),
    }
    print(json.dumps(found, indent=2))
    sys.exit(0 if found["rows identical"] else 1)


if __name__ == "__main__":
    main()
