"""Whether each decoder gives the frames that the ffmpeg command gives, pixel for pixel, over the tests' corpus.

    python eval/benchmarks/conformance.py [--json FILE]

Draws the corpus of the tests (tests/video/corpus.py: codecs, containers, rotations, an edit list) with the ffmpeg
command, then asks each decoder for every frame of each file. A row says what decoded it in the end, whether all frames
and their times are equal, and what the notes say. Ends with 1 when a frame differs.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from clipact.errors import ClipactError  # noqa: E402
from clipact.video.load import load_clip  # noqa: E402
from clipact.video.ways import DECODERS  # noqa: E402
from tests.video.corpus import CORPUS, ROTATIONS, decode_with_ffmpeg, draw, draw_edited, draw_rotated  # noqa: E402

SECONDS_TOLERANCE = 2e-3  # Matroska and FLV count milliseconds


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    for name in CORPUS:
        yield name, draw(name, folder)
    yield "edit list", draw_edited(folder)
    for name, matrix in ROTATIONS.items():
        yield name, draw_rotated(folder, matrix)


def compare(path: Path, every: np.ndarray, seconds: list[float], decoder: str) -> dict[str, Any]:
    try:
        clip = load_clip(path, frames=len(every), decoder=decoder)
    except ClipactError as error:
        return {"decoder": None, "equal": False, "notes": [str(error)]}
    equal = [stamp.index for stamp in clip.stamps] == list(range(len(every))) and np.array_equal(clip.frames, every)
    times = np.allclose([stamp.seconds for stamp in clip.stamps], seconds, rtol=0, atol=SECONDS_TOLERANCE)
    return {"decoder": clip.decoder, "equal": bool(equal and times), "notes": list(clip.notes)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    print(f"{'file':<30}{'asked':<12}{'decoded by':<12}{'frames':>6}  equal")
    with tempfile.TemporaryDirectory() as folder:
        for name, path in files(Path(folder)):
            every, seconds = decode_with_ffmpeg(path)
            for asked in DECODERS:
                row = {"file": name, "asked": asked, "frames": len(every), **compare(path, every, seconds, asked)}
                rows.append(row)
                equal = "yes" if row["equal"] else "NO"
                print(f"{name:<30}{asked:<12}{row['decoder'] or '-':<12}{len(every):>6}  {equal}", flush=True)
                for note in row["notes"]:
                    print(f"    {note}")
    for asked in DECODERS:
        of_it = [row for row in rows if row["asked"] == asked]
        itself = sum(row["decoder"] == asked for row in of_it)
        print(f"{asked}: {sum(row['equal'] for row in of_it)} of {len(of_it)} files equal, {itself} by itself")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(row["equal"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
