"""`clipact embed` killed at random moments and resumed each time: is the file the same, byte by byte?

    python eval/benchmarks/embedding_kill.py --data DIR [--windows 300] [--kills 10] [--seed 0] [--model mini]

A table names stretches of 2 to 10 s of the videos below DIR, drawn with a seed. One run is left alone. Another, with
another cold cache, is killed with SIGKILL, goes on with --resume, is killed again, and ends at last. A kill comes a
random time after the run's first new record in the journal; the times add up to 85 % at most of what the first run took
from its first record to its end, since each run comes as far as its first record for nothing. Exit code 1 when the two
Parquet files differ, when anything else is left beside them, or when a run ended before it was killed.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from embedding_speed import ROOT, draw_windows

_POLL_SECONDS = 0.002


def write_table(path, windows, data):
    """A table of the windows; its paths start from the data folder."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "start_seconds", "end_seconds"])
        table.writerows([Path(name).relative_to(data), start, end] for name, start, end in windows)


class Run:
    """One run of the command, from its start."""

    def __init__(self, table, out, *, data, model, cache, resume=False):
        words = [sys.executable, "-m", "clipact.cli.app", "embed", table, "--data", data, "--out", out, "-m", model]
        self.journal = out.with_name(f"{out.name}.journal")
        self._before = self._size()
        environment = os.environ | {"CLIPACT_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [*map(str, words), *(["--resume"] if resume else [])],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _size(self):
        try:
            return self.journal.stat().st_size
        except FileNotFoundError:
            return 0

    def wait_for_record(self):
        """Return when its first record of its own is in the journal, or when it has ended."""
        head = 0
        while self._process.poll() is None:
            size = self._size()
            head = head or size  # the first line, which is written at once
            if size > max(self._before, head):
                return
            time.sleep(_POLL_SECONDS)

    def kill_after(self, seconds):
        """Kill it; whether its journal was still there, which it removes when its file is whole."""
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline and self._process.poll() is None:
            time.sleep(_POLL_SECONDS)
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        return self.journal.exists()

    def end(self):
        """Its exit code."""
        return self._process.wait()


def sha256(path):
    """In hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=300)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="mini")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        table = folder / "windows.csv"
        write_table(table, draw_windows(given.data, given.windows), given.data)
        (folder / "alone").mkdir()
        (folder / "killed").mkdir()

        def run(name, **more):
            more |= {"data": given.data, "model": given.model, "cache": folder / f"{name} cache"}
            return Run(table, folder / name / "x.parquet", **more)

        first = run("alone")
        first.wait_for_record()
        begun = time.perf_counter()
        assert first.end() == 0, "the run that was left alone failed"
        lasted = time.perf_counter() - begun

        rng = random.Random(given.seed)
        moments = sorted(rng.uniform(0, 0.85 * lasted) for _ in range(given.kills))
        kills = []
        for number, moment in enumerate(moments):
            after = moment - (moments[number - 1] if number else 0.0)
            killed = run("killed", resume=number > 0)
            killed.wait_for_record()
            was_at_work = killed.kill_after(after)
            size = killed.journal.stat().st_size if killed.journal.exists() else None
            kills.append({"seconds_after_record": round(after, 3), "was_at_work": was_at_work, "journal_bytes": size})
            print(kills[-1], file=sys.stderr, flush=True)
            if not was_at_work:
                break
        code = run("killed", resume=True).end()
        left = sorted(path.name for path in (folder / "killed").iterdir())
        hashes = {name: sha256(folder / name / "x.parquet") for name in ("alone", "killed")}
    found = {
        "windows": given.windows,
        "seconds_from_first_record": round(lasted, 2),
        "kills": kills,
        "last_exit_code": code,
        "left": left,
        "sha256": hashes,
        "identical": hashes["alone"] == hashes["killed"],
    }
    print(json.dumps(found, indent=2))
    good = found["identical"] and code == 0 and left == ["x.parquet"] and all(one["was_at_work"] for one in kills)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
