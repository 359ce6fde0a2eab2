"""Makes the lists of files beside the protocols, from what the data sets' authors published and from pictures.

    python eval/make_lists.py published --splits DIR [--out eval/protocols/lists]
    python eval/make_lists.py sports22 --data DIR [--out eval/protocols/lists]
    python eval/make_lists.py gmdcsa24 --data DIR [--out eval/protocols/lists]

`published` turns the zero-shot test lists of UCF101 and HMDB51 ("name label_id" a line, as X-CLIP and ViFi-CLIP publish
them, and a CSV of the labels' names) into manifests whose paths are those of the data sets' own archives.

`sports22` cuts the photographs into train, dev and test, a third, a sixth and a half, so that no picture of one part is
nearly one of another. Pictures whose difference hashes are near each other (clipact.data.fingerprint) are taken
for copies, over all labels. Copies, and copies of copies, are one cluster; only the first picture of a cluster stays,
and a cluster whose pictures carry different labels goes altogether. Which part a picture belongs to is a hash of its
name: adding pictures moves none of those that are there. The first byte says whether it is of test, the second whether
it is of train or dev: train was cut out of an earlier dev part, and test stayed as it was.

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

from clipact.data.fingerprint import NEAR, difference_hash, near_pairs
from clipact.data.manifest import read_manifest
from clipact.prompts import LabelSet
from clipact.video.picture_file import read_picture

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


def clusters(hashes, near=NEAR):
    """The smallest row number of each row's cluster: rows within `near` bits of each other, and of each other's."""
    first = np.arange(len(hashes))

    def find(row):
        while first[row] != row:
            first[row] = row = first[first[row]]
        return row

    for row, other, _ in near_pairs(hashes, hashes, near=near):
        one, two = sorted((find(row), find(other)))
        first[two] = one
    return np.array([find(row) for row in range(len(first))])


def part(path):
    """The part that a picture belongs to, by its name."""
    first, second, *_ = hashlib.sha256(path.encode()).digest()
    return "test" if first % 2 else "train" if second % 3 else "dev"


def sports22(data, out):
    manifest = read_manifest(data / "sports22/labels.csv")
    samples = sorted(manifest.samples, key=lambda sample: sample.path)
    with ThreadPoolExecutor() as pool:
        hashes = np.stack(list(pool.map(lambda one: difference_hash(read_picture(manifest.root / one.path)), samples)))
    alike = defaultdict(list)
    for sample, cluster in zip(samples, clusters(hashes), strict=True):
        alike[int(cluster)].append(sample)
    kept = [own[0] for own in alike.values() if len({sample.label for sample in own}) == 1]
    mixed = sum(len(own) for own in alike.values() if len({sample.label for sample in own}) > 1)
    rows = sorted((sample.path, sample.label, part(sample.path)) for sample in kept)
    write(out / "sports22.csv", ("path", "label", "split"), rows)
    print(
        f"{len(samples):,} pictures; {len(samples) - len(kept) - mixed:,} copies of others and {mixed:,} copies under "
        f"several labels left out; {len(kept):,} stay: "
        + ", ".join(f"{sum(row[2] == name for row in rows):,} {name}" for name in ("train", "dev", "test"))
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
    write(out / "gmdcsa24.csv", ("path", "label", "extra_labels", "start_seconds", "end_seconds"), rows)


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
