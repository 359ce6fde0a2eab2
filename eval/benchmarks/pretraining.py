"""Masked pretraining on real clips: does it learn, and does it help what is tuned afterwards?

    python eval/benchmarks/pretraining.py --data DIR [--seeds 3] [--epochs 300] [--tuning-epochs 40] [--out DIR]

DIR holds clips/ut_interaction.csv and the 120 clips that it names. Of its 20 sequences every fourth is held out, from
pretraining and from tuning alike. Clips are first copied small (96 lines), so that decoding is not what is waited for.
Then eval/recipes/videomae-small.toml learns from the others, without their labels; last, the same tower is tuned to the
words of mini from that beginning and from random weights, with all else equal, once a seed.

Shown are the reconstruction error on held-out clips beside that of predicting each patch's mean, and the accuracy of
both beginnings on the 30 held-out clips: one clip is 3.3 points, and chance is 16.7 %. About 20 minutes on two cores.
"""

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path

import av
import torch

from clipact.cache import Cache
from clipact.config import parse, to_table
from clipact.train.contrastive import ContrastiveTrainer
from clipact.train.log import read_log
from clipact.train.masked import MaskedTrainer, PretrainRecipe
from clipact.train.recipe import Recipe, load_recipe

RECIPE = Path(__file__).parent.parent / "recipes/videomae-small.toml"
LINES = 96


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=300, help="of pretraining")
    parser.add_argument("--tuning-epochs", type=int, default=40)
    parser.add_argument("--out", type=Path, help="keep the runs here; by default they are thrown away")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = given.out or Path(scratch) / "runs"
        small = copy_small(given.data / "clips", Path(scratch) / "small")
        begun = time.monotonic()
        lines = pretrain(small, out / "pretrained", epochs=given.epochs)
        minutes = (time.monotonic() - begun) / 60
        judged = [line for line in lines if "held.error" in line]
        print(f"pretraining: {len(lines)} steps, {minutes:.1f} minutes\n")
        print("| step | error, held-out | of each patch's mean | explained |\n|---|---|---|---|")
        for line in judged:
            print(
                f"| {line['step']} | {line['held.error']:.3f} | {line['held.mean_error']:.3f} "
                f"| {line['held.explained']:.1%} |"
            )
        print("\n| seed | pretrained | from random weights |\n|---|---|---|", flush=True)
        found = {True: [], False: []}
        for seed in range(given.seeds):
            for pretrained, accuracies in found.items():
                start = out / "pretrained/best" if pretrained else None
                place = out / f"{'tuned' if pretrained else 'random'}-{seed}"
                accuracies.append(tune(small, place, start, seed=seed, epochs=given.tuning_epochs))
            print(f"| {seed} | {found[True][-1]:.1%} | {found[False][-1]:.1%} |", flush=True)
        means = [sum(accuracies) / len(accuracies) for accuracies in found.values()]
        print(f"| mean | {means[0]:.1%} | {means[1]:.1%} |")
        best = max(line["held.explained"] for line in judged)
        print(json.dumps({"explained": best, "pretrained": found[True], "random": found[False]}))
    return best <= 0


def copy_small(clips, folder):
    """A folder of the same clips at 96 lines, and its manifest: split "train", or "test" for every fourth sequence."""
    rows = list(csv.DictReader((clips / "ut_interaction.csv").open()))
    groups = sorted({row["group"] for row in rows}, key=lambda name: int(name.removeprefix("seq")))
    held = set(groups[::4])
    folder.mkdir(parents=True)
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "split"])
        for number, row in enumerate(rows):
            shrink(clips / row["path"], folder / f"{number:03}.mp4")
            table.writerow([f"{number:03}.mp4", row["label"], "test" if row["group"] in held else "train"])
    return folder


def shrink(source, target):
    with av.open(str(source)) as whole, av.open(str(target), "w") as copy:
        seen = whole.streams.video[0]
        width = round(seen.width * LINES / seen.height / 2) * 2
        made = copy.add_stream("libx264", rate=round(seen.average_rate or 25), options={"crf": "12"})
        made.width, made.height, made.pix_fmt = width, LINES, "yuv420p"
        for frame in whole.decode(seen):
            picture = frame.to_image().resize((width, LINES))
            copy.mux(made.encode(av.VideoFrame.from_image(picture)))
        copy.mux(made.encode())


def pretrain(data, out, *, epochs):
    changes = [f"train.epochs={epochs}", 'data.sources=[{ manifest = "clips.csv" }]']
    changes.append('validation.sets=[{ name = "held", manifest = "clips.csv", split = "test" }]')
    recipe = load_recipe(RECIPE, PretrainRecipe, changes=changes)
    for _ in MaskedTrainer(recipe, data=data, device=torch.device("cpu")).train(out):
        pass
    return read_log(out)


def tune(data, out, start, *, seed, epochs):
    """Top-1 on the held-out clips after the last step; from random weights when `start` is None."""
    recipe = load_recipe(RECIPE, PretrainRecipe)
    head = {"dim": 256, "blocks": 0}
    visual = {"tower": "vivit", **to_table(recipe.encoder), "head": head}
    begin = {"model": "mini", "visual": visual, "clip": to_table(recipe.clip)}
    if start is not None:
        begin = {"model": "mini", "visual": {"tower": "vivit", "head": head}, "pretrained": {"visual": str(start)}}
    table = {
        "name": "tuned",
        "seed": seed,
        "trained_on": ["ut_interaction, three of four sequences"],
        "init": begin,
        "text": {"trainable": "nothing"},
        "data": {
            "sources": [{"manifest": "clips.csv", "frames": recipe.clip.frames}],
            "augment": {"scale": [0.5, 1.0], "flip": 0.5},
        },
        "train": {"batch": 30, "chunk": 240, "epochs": epochs},
        "optim": {"lr": 1e-3, "warmup_steps": 10, "weight_decay": 0.05},
        "validation": {
            "sets": [{"name": "held", "manifest": "clips.csv", "split": "test", "frames": recipe.clip.frames}]
        },
    }
    run = ContrastiveTrainer(
        parse(Recipe, table),
        data=data,
        device=torch.device("cpu"),
        cache=Cache(out.parent / "store"),
    )
    for _ in run.train(out):
        pass
    return read_log(out)[-1]["held.top_1"]


if __name__ == "__main__":
    raise SystemExit(main())
