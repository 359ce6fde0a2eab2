"""Whether every video and picture below a folder can be read: frames, frames with a note, or which error.

    python eval/benchmarks/read_all.py --data DIR [--json FILE]

Each file is asked for eight frames at its own size by each decoder, and the two are compared. Errors of other kinds
than clipact's end the run: they are bugs.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from clipact.errors import ClipactError
from clipact.video.clip import Clip
from clipact.video.load import load_clip
from clipact.video.open_source import VIDEO_SUFFIXES
from clipact.video.picture_file import SUFFIXES
from clipact.video.ways import DECODERS


def read(path: Path, decoder: str) -> Clip | ClipactError:
    try:
        return load_clip(path, decoder=decoder)
    except ClipactError as error:
        return error


def told(answer: Clip | ClipactError) -> dict[str, Any]:
    if isinstance(answer, ClipactError):
        return {"answer": "error", "error": str(answer)}
    kind = "frames, with a note" if answer.notes else "frames"
    return {"answer": kind, "decoder": answer.decoder, "notes": list(answer.notes)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    known = VIDEO_SUFFIXES | SUFFIXES
    paths = sorted(p for p in arguments.data.rglob("*") if p.suffix.lower() in known and p.is_file())
    rows: list[dict[str, Any]] = []
    counts: dict[str, Counter[str]] = {decoder: Counter() for decoder in DECODERS}
    differing = 0
    for number, path in enumerate(paths, start=1):
        answers = {decoder: read(path, decoder) for decoder in DECODERS}
        pictures = [answer.frames for answer in answers.values() if isinstance(answer, Clip)]
        alike = len(pictures) in (0, len(answers)) and all(np.array_equal(pictures[0], other) for other in pictures[1:])
        differing += not alike
        row = {"file": str(path.relative_to(arguments.data)), "alike": alike}
        for decoder, answer in answers.items():
            row[decoder] = told(answer)
            counts[decoder][row[decoder]["answer"]] += 1
        rows.append(row)
        if sys.stderr.isatty():
            print(f"\r{number} of {len(paths)}", end="", file=sys.stderr, flush=True)
    for decoder, found in counts.items():
        print(
            f"{decoder}: {len(paths)} files: " + ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))
        )
    print(f"{differing} files differ between the decoders")
    said = Counter(
        row[decoder].get("error", "").replace(str(arguments.data), "") or note
        for row in rows
        for decoder in DECODERS
        for note in (row[decoder].get("notes") or [""])
        if row[decoder]["answer"] != "frames"
    )
    for words, count in said.most_common(20):
        print(f"  {count:5} x {words}")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"counts": counts, "differing": differing, "files": rows}, indent=1) + "\n"
        )
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
