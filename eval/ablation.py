"""What each lever of a recipe is worth: variants trained for the same time, judged on the same held-out samples.

    python eval/ablation.py eval/mini-ablation.toml --data DIR --out OUT [--minutes 10] [--only NAME ...]

The table names a recipe and variants: `set` are changes to it as `clipact train --set` takes them, `teachers` variants
whose models of seed 0 teach (`teach.models`) and which stand before it, `seeds` is how many runs. The last stretch of a
run, in which most learns, has as many steps as fit into the minutes that the others leave, by measured ones; so a
slower network takes fewer, as it would in the end. What frozen towers make of the data is not counted: it is kept in
the store. Each run has its own process. Judged are retrieval on Flickr8k's dev pictures (DIR/flickr8k) and the
22 sports of the card sports22-dev. Intervals are of the difference from the first variant, from 1,000 paired draws of
whole pictures, seeds averaged.

What is done is kept in OUT and not done again; a run that was killed is begun anew. Exit code 1 when one failed.
"""

import argparse
import json
import multiprocessing
import shutil
import sys
import time
import tomllib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

CAPTIONS, SPORTS = "flickr8k/captions.csv", "sports22-dev"


def train(recipe_file, changes, minutes, data, out):
    """Trains for so many minutes: steps, those of the last stretch, seconds, and the last steps' loss."""
    import torch

    from clipact.store import Store
    from clipact.training.loop import Run
    from clipact.training.outline import load_recipe
    from clipact.training.plan import plan_run
    from clipact.training.recipe import Recipe

    def begun(recipe):
        return Run(recipe, data=data, device=torch.device("cpu"), store=Store(), watch=lambda items, total, what: items)

    recipe = load_recipe(recipe_file, Recipe, changes=[*changes, "judge.sets=[]"])
    *before, last = plan_run(begun(recipe)).phases
    seconds = 60 * minutes - sum((phase.last - phase.first) * phase.step_seconds[-1] for phase in before)
    steps = last.first + max(1, int(seconds / last.step_seconds[-1]))
    recipe = replace(recipe, train=replace(recipe.train, steps=steps, epochs=None))
    losses, start, run = [], time.perf_counter(), begun(recipe)
    for report in run.train(out):
        losses.append(report.loss)
        if sys.stderr.isatty():
            print(f"\r{report.step:,} of {run.steps:,}: loss {report.loss:.3f}", end="", file=sys.stderr, flush=True)
    return {
        "steps": run.steps,
        "last": run.steps - last.first,
        "seconds": time.perf_counter() - start,
        "loss": float(np.mean(losses[-20:])),
    }


def judge(model_folder, data, out):
    """Right answers by sample, and what each sample belongs to, for both sets."""
    from clipact.evaluate import How, manifest_card, read_samples
    from clipact.evaluate.carry_out import Changes, carry_out
    from clipact.metrics import best_ranks, hits
    from clipact.protocol import load_card
    from clipact.store import Store
    from clipact.zoo import load

    model = load(str(model_folder), device="cpu")
    captions, _ = Changes(frames=1).apply(manifest_card(str(data / CAPTIONS), split="dev"))
    found = {}
    for name, card, folder in (("captions", captions, (data / CAPTIONS).parent), ("sports", load_card(SPORTS), data)):
        result, _ = carry_out(card, read_samples(card, folder), model, out, how=How(store=Store()))
        samples = np.asarray(result.samples)
        if name == "captions":
            ranks = best_ranks(result.similarity, result.text_of, np.arange(len(samples)))
            back = best_ranks(result.similarity.T, np.arange(len(samples)), result.text_of)
            found["text_to_picture"] = {"ranks": ranks.tolist(), "of": samples[result.text_of].tolist()}
            found["picture_to_text"] = {"ranks": back.tolist(), "of": samples.tolist()}
        else:
            wrong = ~hits(result.scores, result.truth)
            found["sports"] = {"ranks": wrong.astype(int).tolist(), "of": samples.tolist()}
    return found


def apart(function, *arguments):
    """What the function gives in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def folder_of(name, seed, out):
    """Where a run is kept."""
    return out / f"{name}--{seed}".replace(" ", "-").replace(":", "").replace(",", "")


def run_once(recipe, variant, seed, given):
    """What a run came to, from OUT when it is there."""
    folder = folder_of(variant["name"], seed, given.out)
    kept = folder / "found.json"
    asked = {key: variant.get(key, []) for key in ("set", "teachers")} | {"seed": seed, "minutes": given.minutes}
    if kept.is_file() and (found := json.loads(kept.read_text()))["asked"] == asked:
        return found
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{variant['name']}, seed {seed}", file=sys.stderr)
    changes = [*asked["set"], f"seed={seed}"]
    if asked["teachers"]:
        teachers = [str(folder_of(name, 0, given.out) / "run/last") for name in asked["teachers"]]
        changes.append(f"teach.models={json.dumps(teachers)}")
    found = {"asked": asked} | apart(train, recipe, changes, given.minutes, given.data, folder / "run")
    found |= apart(judge, folder / "run/last", given.data, folder)
    kept.write_text(json.dumps(found))
    return found


FIGURES = (("text_to_picture", 1), ("text_to_picture", 5), ("picture_to_text", 1), ("sports", 1))


def right(cells, kind, k):
    """The share of seeds that were right, by sample."""
    return np.mean([np.asarray(cell[kind]["ranks"]) < k for cell in cells], axis=0)


def row(variant, cells, base):
    """A line of the table: each figure, and its difference from the base with its interval."""
    from clipact.metrics import paired_bootstrap

    shown = []
    for kind, k in FIGURES:
        own, other = right(cells, kind, k), right(base, kind, k)
        if cells is base:
            shown.append(f"{own.mean():.1%}")
            continue
        found = paired_bootstrap(
            lambda rows, own=own: float(own[rows].mean()),
            lambda rows, other=other: float(other[rows].mean()),
            len(own),
            groups=cells[0][kind]["of"],
        )
        shown.append(f"{own.mean():.1%} ({100 * found.low:+.1f} to {100 * found.high:+.1f})")
    steps = "/".join(str(cell["last"]) for cell in cells)
    minutes = np.mean([cell["seconds"] / 60 for cell in cells])
    return f"| {variant['name']} | {len(cells)} | {steps} | {minutes:.1f} | {' | '.join(shown)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", nargs="*", help="variants beside the first")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    table = tomllib.loads(given.table.read_text())
    recipe, failed, base = given.table.parent / table["recipe"], False, []
    first, *others = table["variants"]
    print("| variant | seeds | last steps | minutes | text to picture @1 | @5 | picture to text @1 | sports22-dev |")
    print("|---|---|---|---|---|---|---|---|")
    for variant in [first, *(one for one in others if given.only is None or one["name"] in given.only)]:
        try:
            cells = [run_once(recipe, variant, seed, given) for seed in range(variant.get("seeds", 1))]
        except Exception as error:
            if variant is first:
                raise
            failed = True
            print(f"| {variant['name']} | failed: {str(error).splitlines()[0]} |", flush=True)
            continue
        base = base or cells
        print(row(variant, cells, base), flush=True)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
