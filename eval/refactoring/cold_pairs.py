"""Time a cold `clipact classify` in two checkouts: alternating pairs of processes, the median ratio pair by pair.

    python eval/refactoring/cold_pairs.py --other DIR [--pairs 15] [--json]

Each process starts from nothing, with this interpreter and a text cache that is warm, on one example; `clipact --help`
is timed, too. The first pair warms the page cache and does not count. The order within a pair changes each time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "classify": ["classify", str(ROOT / "examples/reading_newspaper.mp4"), "--labels", "reading a book,cooking,riding"],
    "help": ["--help"],
}


def seconds(checkout: Path, words: list[str], cache: Path) -> tuple[float, float]:
    """Wall and CPU seconds of one process."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "CLIPACT_CACHE": str(cache / checkout.name)}
    script = "from clipact.cli.app import main; main()"
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words],
        cwd=checkout,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{checkout}: clipact {' '.join(words)} ended with {process.returncode}")
    return wall, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, required=True, help="the checkout that this one is compared with")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    both = {"other": options.other.resolve(), "this": ROOT}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, words in COMMANDS.items():
            pairs = []
            for number in range(options.pairs + 1):
                order = ("other", "this") if number % 2 else ("this", "other")
                pairs.append({side: seconds(both[side], words, Path(folder)) for side in order})
            counted = pairs[1:]
            found[name] = {
                "pairs": len(counted),
                "wall_ratio": statistics.median(one["this"][0] / one["other"][0] for one in counted),
                "cpu_ratio": statistics.median(one["this"][1] / one["other"][1] for one in counted),
                "other_seconds": statistics.median(one["other"][0] for one in counted),
                "this_seconds": statistics.median(one["this"][0] for one in counted),
            }
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for name, one in found.items():
        print(
            f"{name:9} {one['this_seconds']:.2f} s, other {one['other_seconds']:.2f} s; median ratio of "
            f"{one['pairs']} pairs: wall {one['wall_ratio']:.3f}, CPU {one['cpu_ratio']:.3f}"
        )


if __name__ == "__main__":
    main()
