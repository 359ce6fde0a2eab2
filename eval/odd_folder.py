"""Classifies a hundred videos, over thirty of them of odd kinds: each must have its row, whatever is wrong with it.

    python eval/odd_folder.py [--count 100] [--keep DIR] [--json FILE]

Draws every kind of odd_videos.py, fills up with plain files, shuffles them, and runs `clipact classify --json` over the
list, in a process of its own and with an empty cache. Prints how many rows came, and for each odd kind its notes or its
error. Ends with 1 when a row is missing, or when anything but a sentence reached the screen.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from odd_videos import ODD, draw_odd, ffmpeg

PLAIN = "-f lavfi -i testsrc2=size=64x48:rate=10:duration=2 -c:v libx264 -preset ultrafast -pix_fmt yuv420p"


def draw_folder(folder: Path, count: int, *, odd: tuple[str, ...] = tuple(ODD)) -> list[Path]:
    """`count` files, in no order: one of each odd kind, and copies of a plain one."""
    paths = [draw_odd(folder, name) for name in odd]
    plain = folder / "plain-0.mp4"
    ffmpeg(f"{PLAIN} {{}}", plain)
    paths.append(plain)
    for number in range(1, count - len(odd)):
        paths.append(shutil.copy(plain, folder / f"plain-{number}.mp4"))
    random.Random(0).shuffle(paths)
    return paths


def classify(paths: list[Path], folder: Path) -> tuple[list[dict[str, Any]], str]:
    """The rows of the command, and what it wrote on stderr."""
    names = folder / "names.txt"
    names.write_text("".join(f"{path}\n" for path in paths))
    command = [sys.executable, "-m", "clipact.cli.app", "classify", f"@{names}", "--labels", "drink,read", "--json"]
    environment = os.environ | {"CLIPACT_CACHE": str(folder / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--keep", type=Path, help="where the files are left")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        paths = draw_folder(folder, max(arguments.count, len(ODD) + 1))
        rows, said = classify(paths, folder)
    answers = {Path(row["video"]).name: row for row in rows}
    print(f"{len(rows)} rows of {len(paths)} files, {sum(row['error'] is not None for row in rows)} of them errors")
    for name in ODD:
        row = answers.get(name)
        told = "NO ROW" if row is None else row["error"]["message"] if row["error"] else "; ".join(row["notes"]) or "-"
        print(f"  {name:<24}{told.removeprefix(f'{folder / name}: ')}")
    if "Traceback" in said:
        print(said, file=sys.stderr)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if len(rows) == len(paths) and "Traceback" not in said else 1


if __name__ == "__main__":
    sys.exit(main())
