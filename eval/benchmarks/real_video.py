"""What order-aware towers gain on a little real video: weizmann and ut_interaction, trained against sentences.

    python eval/benchmarks/real_video.py --data DIR [--sets weizmann] [--towers vivit] [--json]

DIR holds clips/weizmann.csv (72 clips, 4 actions, 9 people) and clips/ut_interaction.csv (120 clips, 6 interactions, 20
sequences). Three folds: people, or sequences, are sorted and dealt to the folds in turn; whoever is in the tested fold
is in no clip that is learnt from, and each clip is tested once a seed. Three seeds. Labels are learnt and asked for as
sentences (the templates "action"); the words are mini's and stay as they are.

Every aggregator learns, with the image tower's head, on mini's frozen frames, which are encoded once and kept. So does
the temporal shift, whose frozen body never learnt to see its neighbours' channels: shift as it is meant learns whole.
ViViT and Video Swin are small, begin at random, and see 8 of 16 frames of 64 pixels with random crops and mirror
images. Towers of one kind have one budget, which is printed.

An interval draws whole people or sequences, and is of the mean over seeds; the difference is to mean pooling, on the
same clips, and half of its interval's width is the smallest that could have been told from none. Half the time in two
processes of one thread each: OMP_NUM_THREADS=1, a set each.
"""

import argparse
import csv
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from drawn_motion import write_clip

from clipact import metrics
from clipact.cache import Cache
from clipact.clip_spec import ClipSpec
from clipact.config import parse
from clipact.data.sources import SourceConfig, read_sources
from clipact.evaluate.metric_values import share_of
from clipact.models.towers.frame_aggregator import AGGREGATORS
from clipact.models.towers.vivit import AttentionKind
from clipact.prompts import LabelSet, PromptSet
from clipact.train.contrastive import ContrastiveTrainer
from clipact.train.encoded_batches import EncodedBatches
from clipact.train.recipe import Recipe
from clipact.video.load import load_clips

SETS = {"weizmann": "person", "ut_interaction": "group"}
FOLDS, SEEDS, FRAMES, SIDE = 3, 3, 8, 64
KEPT = ClipSpec(frames=2 * FRAMES, size=(72, 72), resize="squash")  # what is kept of a clip for towers from nothing
FROZEN = {"batch": 48, "steps": 120, "lr": 1e-3}
WHOLE = {"batch": 16, "steps": 150, "lr": 1e-3}
AUGMENT = {"scale": [0.6, 1.0], "flip": 0.5, "brightness": 0.2, "contrast": 0.2}
SMALL = {"frames": FRAMES, "size": [SIDE, SIDE]}
HEAD = {"dim": 256, "blocks": 0}
VIVIT = {"tower": "vivit", "width": 128, "layers": 4, "heads": 4, "hidden": 256, "patch": 16, "head": HEAD}
VIVIT |= {"time_layers": 2}  # of the factorised encoder
SWIN = {"tower": "swin3d", "width": 32, "depths": [2, 2, 2], "heads": [2, 4, 8], "window": [4, 4, 4], "head": HEAD}
TOWERS = {
    **{f"mini's frames, {name}": {"tower": "frame_aggregator", "aggregator": name} for name in AGGREGATORS},
    "mini's frames, shift": {"tower": "frame_aggregator", "aggregator": "mean", "shift": 0.125},
    **{f"vivit, {look}": {**VIVIT, "attention": look} for look in get_args(AttentionKind)},
    "swin3d": SWIN,
}
BASE = "mini's frames, mean"


def read_rows(data, name):
    """The lines of a set's table, each with its fold."""
    with (data / f"clips/{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    groups = sorted({row[SETS[name]] for row in rows}, key=lambda group: (len(group), group))
    return [{**row, "group": row[SETS[name]], "fold": groups.index(row[SETS[name]]) % FOLDS} for row in rows]


def write_tables(rows, folder):
    """A manifest a fold, in which the fold's clips are of split "test"."""
    for fold in range(FOLDS):
        with (folder / f"fold{fold}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["path", "label", "split"])
            table.writerows((r["path"], r["label"], "test" if r["fold"] == fold else "train") for r in rows)


def keep_small(rows, data, folder):
    """Each clip once more, 16 frames that are quickly read; a run from nothing reads each of them thirty times."""
    for row in rows:
        (clip,) = load_clips(str(data / "clips" / row["path"]), KEPT)
        path = folder / Path(row["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(path, clip.frames, container="avi")


def recipe_of(tower, manifest, root, seed):
    """The recipe of one run: frozen frames where the image tower is mini's, else a tower from nothing."""
    frozen = tower["tower"] == "frame_aggregator"
    budget = FROZEN if frozen else WHOLE
    table = {
        "name": "real video",
        "trained_on": [manifest.parent.name],
        "seed": seed,
        "init": {"model": "mini", "visual": tower, **({} if frozen else {"clip": SMALL})},
        "data": {
            "sources": [{"manifest": str(manifest), "root": str(root), "frames": FRAMES}],
            "workers": 1,
            **({} if frozen else {"augment": AUGMENT}),
        },
        "visual": {"trainable": "head" if frozen else "all"},
        "text": {"trainable": "nothing"},
        "train": {
            "batch": budget["batch"],
            "chunk": FRAMES * budget["batch"],
            "steps": budget["steps"],
            "graph_memory_gb": 4,
        },
        "optim": {"lr": budget["lr"], "weight_decay": 0.1, "warmup_steps": budget["steps"] // 10, "clip_norm": 1.0},
    }
    return parse(Recipe, table)


@torch.inference_mode()
def judge(run, labels):
    """Whether each test clip of the fold is named rightly, by its path."""
    (source,) = run.recipe.data.sources
    examples = read_sources(
        [SourceConfig(manifest=source.manifest, root=source.root, split="test", frames=FRAMES)], Path()
    )
    encoded = EncodedBatches(
        run.encoder.eval(),
        examples,
        run.recipe.data,
        chunk=FRAMES * 8,
        seed=0,
        cached_sides=("visual",) if run.recipe.visual.trainable == "head" else (),
        unreadable_files={},
        cache=run.cache,
        progress=run.progress,
        unaugmented=True,
    )
    visual_ids, clips = encoded.embed_clips()
    words = run.encoder.embed_groups(*PromptSet.load("action").sentences(labels))
    answers = dict(zip(visual_ids, (clips @ words.T).argmax(1).tolist(), strict=True))
    return {example.file: answers[example.visual_id] for example in examples}


def answer_all(tower, rows, places, labels, cache):
    """The answers (seeds, clips) of a tower, each from the fold in which the clip was not learnt from; and seconds."""
    begun = time.perf_counter()
    found = np.zeros((SEEDS, len(rows)), dtype=int)
    for seed in range(SEEDS):
        for fold in range(FOLDS):
            root = places["clips" if tower["tower"] == "frame_aggregator" else "small"]
            run = ContrastiveTrainer(
                recipe_of(tower, places["tables"] / f"fold{fold}.csv", root, seed),
                data=Path(),
                device=torch.device("cpu"),
                cache=cache,
            )
            out = places["tables"] / "run"
            for _ in run.train(out):
                pass
            shutil.rmtree(out)
            answers = judge(run, labels)
            for number, row in enumerate(rows):
                if row["fold"] == fold:
                    found[seed, number] = answers[row["path"]]
    return found, time.perf_counter() - begun


def compare(hits, base, groups):
    """The figures of a tower from its hits (seeds, clips), beside those of mean pooling."""
    one, other = share_of(hits.mean(0)), share_of(base.mean(0))
    above = metrics.paired_bootstrap(one, other, len(groups), groups=groups)
    return {
        "top_1": vars(metrics.bootstrap(one, len(groups), groups=groups)),
        "of_seeds": hits.mean(1).tolist(),
        "above_mean_pooling": vars(above),
        "detectable": (above.high - above.low) / 2,
    }


def print_row(name, tower, row):
    top_1, above = row["top_1"], row["above_mean_pooling"]
    seeds = " ".join(f"{100 * one:.0f}" for one in row["of_seeds"])
    difference = f"{100 * above['value']:+.1f} ({100 * above['low']:+.1f} – {100 * above['high']:+.1f})"
    print(
        f"| {name} | {tower} | {100 * top_1['value']:.1f} ({100 * top_1['low']:.1f} – {100 * top_1['high']:.1f}) "
        f"| {seeds} | {'' if tower == BASE else difference} "
        f"| {'' if tower == BASE else format(100 * row['detectable'], '.1f')} | {row['seconds']:.0f} |",
        flush=True,
    )


def limits(name, found):
    """What a set of so few groups cannot show, in a sentence."""
    split = f"{name}, split by {SETS[name]}: {found['clips']} clips of {found['groups']}"
    halves = [row["detectable"] for tower, row in found["towers"].items() if tower != BASE]
    if not halves:
        return f"{split}"
    return (
        f"{split}. A difference to mean pooling is told from none from {100 * min(halves):.1f} points on at best, and "
        f"from {100 * max(halves):.1f} at worst: gains that are smaller, and towers that lie closer together, such "
        "little data cannot show, nor what would hold of other people, places or actions."
    )


def try_set(name, data, chosen, place, told):
    """The figures of all chosen towers on a set; `told` is given each as it comes."""
    rows = read_rows(data, name)
    labels = LabelSet.of(sorted({row["label"] for row in rows}))
    truth = np.array([labels.labels.index(row["label"]) for row in rows])
    groups = [row["group"] for row in rows]
    tables = place / name
    tables.mkdir()
    write_tables(rows, tables)
    places = {"tables": tables, "clips": data / "clips", "small": tables / "small"}
    if any(tower["tower"] != "frame_aggregator" for tower in chosen.values()):
        keep_small(rows, data, places["small"])
    found = {"split": SETS[name], "groups": len(set(groups)), "clips": len(rows), "towers": {}}
    base = None
    for tower_name, tower in chosen.items():
        answers, seconds = answer_all(tower, rows, places, labels, Cache(place / "store"))
        hits = answers == truth
        base = hits if base is None else base
        row = found["towers"][tower_name] = {**compare(hits, base, groups), "seconds": seconds}
        told(name, tower_name, row)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS), help="both by default")
    parser.add_argument(
        "--towers", nargs="+", default=[""], help="those whose names hold a word; mean pooling is always there"
    )
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    chosen = {BASE: TOWERS[BASE]}
    chosen |= {name: tower for name, tower in TOWERS.items() if any(word in name for word in given.towers)}
    table = {"folds": FOLDS, "seeds": SEEDS, "frozen": FROZEN, "from nothing": WHOLE, "sets": {}}
    if not given.json:
        print(f"{FOLDS} folds, {SEEDS} seeds; frozen {FROZEN}; from nothing {WHOLE}\n")
        print("| set | tower | top-1, % | seeds | above mean pooling, points | told from none, from | s |")
        print(f"|{'---|' * 7}", flush=True)
    told = (lambda *row: None) if given.json else print_row
    with tempfile.TemporaryDirectory() as place:
        for name in given.sets:
            table["sets"][name] = try_set(name, given.data.resolve(), chosen, Path(place), told)
            table["sets"][name]["limits"] = limits(name, table["sets"][name])
    if given.json:
        print(json.dumps(table, indent=2))
    else:
        print("\n" + "\n".join(found["limits"] for found in table["sets"].values()))


if __name__ == "__main__":
    main()
