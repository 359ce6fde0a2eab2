"""A run over 13,320 small drawn files in UCF101's layout: does it hold, in flat memory, and survive kill -9?

    python eval/benchmarks/ucf101_shape.py [--folder DIR] [--files 13320] [--kill-at 0.4] [--json]

Draws the tree once (101 folders, v_LABEL_gNN_cNN.avi; every file of its own bytes), and a model with mini's
architecture as small as it goes. Then runs `clipact eval` three times: whole; with a journal, killed with signal 9 once
its share of the journal is written; and resumed. The first and the last result must be identical, bit for bit. Memory
is the resident set of the process, sampled twice a second, over the four quarters of the whole run.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from clipact.evaluate.results import identical, load_result
from clipact.prompts import LabelSet


def draw(root, files):
    """The tree and its table: small MPEG-4 files, each with its own number painted in."""
    labels = LabelSet.load("ucf101").labels
    lines = ["path,label"]
    for number in range(files):
        label = labels[number % len(labels)]
        group, clip = number // len(labels) // 7 + 1, number // len(labels) % 7 + 1
        path = root / label / f"v_{label}_g{group:02}_c{clip:02}.avi"
        lines.append(f"{path.relative_to(root)},{label}")
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = np.zeros((32, 48, 3), np.uint8)
        picture[:16] = [number % 251, number // 251 * 4, 80]
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            for t in range(8):
                shown = picture.copy()
                shown[20:28, 4 * t : 4 * t + 8] = 250
                container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
            container.mux(stream.encode())
    (root / "table.csv").write_text("\n".join(lines) + "\n")


def start(root, out, cache, *words):
    command = [sys.executable, "-m", "clipact.cli.app", "eval", str(root / "table.csv"), "--data", str(root)]
    command += ["--model", str(root.parent / "tiny"), "--out", str(out), "--json", "--frames", "2", *words]
    environment = {**os.environ, "CLIPACT_CACHE": str(cache)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def resident(process):
    """Bytes in memory; None when the process has ended."""
    try:
        text = Path(f"/proc/{process.pid}/statm").read_text()
    except OSError:
        return None
    pages = text.split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 and int(pages[1]) else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--files", type=int, default=13320)
    parser.add_argument("--kill-at", type=float, default=0.4)
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ucf101-shape-") as temporary:
        table = run(words, words.folder or Path(temporary))
    print(json.dumps(table, indent=2) if words.json else "\n".join(f"{name}: {value}" for name, value in table.items()))
    sys.exit(0 if table["identical after resume"] else 1)


def run(words, folder):
    """The three runs in a folder, and what they gave."""
    root = folder / "data"
    draw(root, words.files)
    from tests.tiny import tiny_checkpoint  # a checkout has it

    if not (folder / "tiny").exists():
        tiny_checkpoint(folder / "tiny")
    begun, memory = time.perf_counter(), []
    whole = start(root, folder / "whole", folder / "cache1")
    while whole.poll() is None:
        if (now := resident(whole)) is not None:
            memory.append(now)
        time.sleep(0.5)
    assert whole.returncode == 0, whole.returncode
    seconds = time.perf_counter() - begun
    first = load_result(folder / "whole" / "table--frames-2--tiny")
    begun = time.perf_counter()
    killed = start(root, folder / "killed", folder / "cache2")
    journal = folder / "killed" / "table--frames-2--tiny.journal"
    size_a_file = 101 * 4 + 150
    while not journal.exists() or journal.stat().st_size < words.kill_at * words.files * size_a_file:
        assert killed.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    before_kill = time.perf_counter() - begun
    begun = time.perf_counter()
    resumed = start(root, folder / "killed", folder / "cache2", "--resume")
    row = json.loads(resumed.communicate()[0])
    after_kill = time.perf_counter() - begun
    steady = memory[len(memory) // 10 : -2]
    return {
        "files": len(first.samples),
        "unreadable": len(first.unreadable),
        "seconds, whole": seconds,
        "seconds, until killed": before_kill,
        "seconds, resumed": after_kill,
        "identical after resume": identical(first, load_result(row["result"])),
        "resident MiB, mean of each quarter": [float(np.mean(q)) / 2**20 for q in np.array_split(steady, 4)],
        "resident MiB, most": max(memory) / 2**20,
    }


if __name__ == "__main__":
    main()
