"""Our towers against the modules that they stand for, in the sizes that are published, with the same random weights.

    python eval/benchmarks/equivalence.py [--only vivit] [--json]

open_clip, transformers and torchvision make the reference; its weights go to ours through a file. Shown is the largest
difference of any number that comes out, in fp32: of unit vectors, logits, or what a video network gives before a head.
It is at most 1e-5 everywhere. tests/equivalence has the same pairs in small. Needs a checkout, 4 GB and ten minutes.
"""

import argparse
import json
import tempfile
from pathlib import Path

LIMIT = 1e-5


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="pairs whose names hold these words; all by default")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    from tests.equivalence.pairs import PUBLISHED, differences  # a checkout has it

    found = {}
    if not given.json:
        print("| reference | M parameters | largest difference of | |\n|---|---|---|---|", flush=True)
    for name, make in PUBLISHED.items():
        if given.only.lower() not in name.lower():
            continue
        with tempfile.TemporaryDirectory() as folder:
            pair = make(Path(folder))
            apart = differences(pair)
        found[name] = {"parameters": pair.parameters, "largest_difference": apart}
        if not given.json:
            said = ", ".join(f"{what} {value:.1e}" for what, value in apart.items())
            verdict = "" if max(apart.values()) <= LIMIT else f"above {LIMIT:g}"
            print(f"| {name} | {pair.parameters / 1e6:.1f} | {said} | {verdict} |", flush=True)
        del pair
    if given.json:
        print(json.dumps(found, indent=2))
    return max(max(one["largest_difference"].values()) for one in found.values()) > LIMIT


if __name__ == "__main__":
    raise SystemExit(main())
