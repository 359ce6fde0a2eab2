"""Makes the lists of files beside the protocol cards, from what the data sets' authors published and from pictures.

    python eval/make_lists.py published --splits DIR [--out eval/protocols/lists]
    python eval/make_lists.py sports22 --data DIR [--out eval/protocols/lists]
    python eval/make_lists.py gmdcsa24 --data DIR [--out eval/protocols/lists]

`published` turns the zero-shot test lists of UCF101 and HMDB51 ("name label_id" a line, as X-CLIP and ViFi-CLIP publish
them, and a CSV of the labels' names) into manifests whose paths are those of the data sets' own archives.

`sports22` cuts the photographs into dev and test, half and half within each label, so that no picture of one part is
nearly one of the other. Pictures whose 64-bit difference hash (a gradient between neighbours of a 9 x 8 reduction)
differs in at most NEAR bits are taken for copies, over all labels. Copies, and copies of copies, are one cluster; only
the first picture of a cluster stays, and a cluster whose pictures carry different labels goes altogether. Which part a
picture belongs to is a hash of its name: adding pictures moves none of those that are there.

`gmdcsa24` makes a sample of each stretch of DIR/clips/gmdcsa24.csv that lasts half a second or more and shows one of
seven actions of the label set daily-living; that somebody sits or stands is none of them. What else is true of it are
the actions of other stretches of the file that cover half of it.
"""

import argparse
import csv
import hashlib
import re
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from clipact.data.manifest import read_manifest
from clipact.prompts import LabelSet

NEAR = 6
SHORTEST = 0.5  # seconds
HOME = {
    "Reading": "read",
    "Walking": "walk",
    "Falling": "fall down",
    "Fall": "fall down",
    "Eating": "eat",
    "Drinking": "drink",
    "Exercising": "exercise",
    "Sleeping": "sleep",
}
SETS = {"ucf101": "ucf_101_labels.csv", "hmdb51": "hmdb_51_labels.csv"}


def published(splits, out):
    for name, table in SETS.items():
        with (splits / table).open(newline="") as file:
            labels = {row["id"]: row["name"] for row in csv.DictReader(file)}
        named = {label.casefold(): label for label in LabelSet.load(name).labels}
        for number in (1, 2, 3):
            rows = []
            for line in (splits / name / f"val{number}.txt").read_text().splitlines():
                file, _, label_id = line.rpartition(" ")
                # UCF101's archive has v_HandStandPushups_… in the folder HandstandPushups: the label says the folder.
                folder = named[labels[label_id].replace(" ", "_").casefold()]
                if name == "hmdb51":  # the table of names gives kick and kick_ball, sword and sword_exercise each
                    # other's numbers: a file's own name tells its action, and so its folder in the archive
                    acts = (label for label in named.values() if re.search(rf"_{label}_[a-z]_[cn]m_np\d", file))
                    folder = max(acts, key=len)  # draw_sword, not sword
                rows.append((f"{folder}/{file}", folder))
            write(out / f"{name}-test{number}.csv", ("path", "label"), rows)


def difference_hash(path):
    """The 64 bits of a picture's horizontal gradients (Krawetz 2013), as eight bytes."""
    with Image.open(path) as picture:
        small = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.LANCZOS), dtype=np.int16)
    return np.packbits(small[:, 1:] > small[:, :-1])


def clusters(hashes, near):
    """The smallest row number of each row's cluster: rows within `near` bits of each other, and of each other's."""
    first = np.arange(len(hashes))

    def find(row):
        while first[row] != row:
            first[row] = row = first[first[row]]
        return row

    bits = np.unpackbits(hashes, axis=1).astype(np.float32)
    counts = bits.sum(1)
    for start in range(0, len(bits), 512):
        block = slice(start, start + 512)
        apart = counts[block, None] + counts[None] - 2 * bits[block] @ bits.T
        for row, other in zip(*np.nonzero(apart <= near), strict=True):
            one, two = sorted((find(start + row), find(other)))
            first[two] = one
    return np.array([find(row) for row in range(len(first))])


def sports22(data, out):
    manifest = read_manifest(data / "sports22/labels.csv")
    samples = sorted(manifest.samples, key=lambda sample: sample.path)
    with ThreadPoolExecutor() as pool:
        hashes = np.stack(list(pool.map(lambda one: difference_hash(manifest.root / one.path), samples)))
    alike = defaultdict(list)
    for sample, cluster in zip(samples, clusters(hashes, NEAR), strict=True):
        alike[int(cluster)].append(sample)
    kept = [own[0] for own in alike.values() if len({sample.label for sample in own}) == 1]
    mixed = sum(len(own) for own in alike.values() if len({sample.label for sample in own}) > 1)
    rows = []
    for sample in kept:
        even = hashlib.sha256(sample.path.encode()).digest()[0] % 2
        rows.append((sample.path, sample.label, "test" if even else "dev"))
    write(out / "sports22.csv", ("path", "label", "split"), sorted(rows))
    print(
        f"{len(samples):,} pictures; {len(samples) - len(kept) - mixed:,} copies of others and {mixed:,} copies under "
        f"several labels left out; {len(kept):,} stay: "
        f"{sum(row[2] == 'dev' for row in rows):,} dev, {sum(row[2] == 'test' for row in rows):,} test"
    )


def gmdcsa24(data, out):
    rows = []
    with (data / "clips/gmdcsa24.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            stretches = []
            for name, times in re.findall(r"(\w+)[^;\[]*\[([^\]]*)\]", line["segments_seconds"]):
                for start, end in re.findall(r"([\d.]+) to ([\d.]+)", times):
                    stretches.append((HOME.get(name), float(start), float(end)))
            for label, start, end in stretches:
                if label is None or end - start < SHORTEST:
                    continue
                also = {
                    other
                    for other, begun, over in stretches
                    if other not in (None, label) and min(end, over) - max(start, begun) >= (end - start) / 2
                }
                rows.append((line["path"], label, "|".join(sorted(also)), f"{start:g}", f"{end:g}"))
    write(out / "gmdcsa24.csv", ("path", "label", "also", "start_seconds", "end_seconds"), rows)


def write(path, head, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])
    print(f"{path}: {len(rows):,} lines")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("published").add_argument("--splits", type=Path, required=True)
    commands.add_parser("sports22").add_argument("--data", type=Path, required=True)
    commands.add_parser("gmdcsa24").add_argument("--data", type=Path, required=True)
    for command in commands.choices.values():
        command.add_argument("--out", type=Path, default=Path("eval/protocols/lists"))
    words = parser.parse_args()
    if words.command == "published":
        published(words.splits, words.out)
    else:
        {"sports22": sports22, "gmdcsa24": gmdcsa24}[words.command](words.data, words.out)


if __name__ == "__main__":
    main()
