"""What each lever of a recipe is worth: variants trained for the same time, judged on the same held-out samples.

    python eval/ablation.py eval/mini-ablation.toml --data DIR --out OUT [--only NAME ...]

The table names a recipe and variants: `set` are changes to it as `clipact train --set` takes them, of all or of one,
`teachers` variants whose models of seed 0 teach (`distillation.teachers`), `seeds` is how many runs. The last phase of
the first variant, in which most learns, has `last_steps` steps; another's has as many as fit into the same time, by
steps of both that are measured one after the other. So a slower network takes fewer, as it would in the end, and a
slower machine gives the same table. What frozen towers make of the data is not counted: it is cached. Each run
has its own process. Evaluated are retrieval on Flickr8k's dev pictures (DIR/flickr8k) and the 22 sports of the protocol
sports22-dev. Intervals are of the difference from the first variant, from 1,000 paired draws of whole pictures, seeds
averaged.

OUT holds the models. What was found stands beside the table (.json), sample by sample, and is not sought again, there
or on another machine; a run that was killed is begun anew. Several processes may fill one table, but not on the same
cores, where they measure their steps badly. Exit code 1 when one failed.
"""

import argparse
import json
import multiprocessing
import shutil
import sys
import time
import tomllib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clipact.atomic_write import atomic_write

CAPTIONS, SPORTS, KS = "flickr8k/captions.csv", "sports22-dev", (1, 5)


def train(recipe_file, shared, changes, seed, last_steps, data, out):
    """Trains as long as it takes for so many last steps without `changes`: steps, last ones, seconds, the last loss."""
    import torch

    from clipact.cache import Cache
    from clipact.train.contrastive import ContrastiveTrainer
    from clipact.train.dry_run import dry_run
    from clipact.train.recipe import Recipe, load_recipe

    def begun(recipe):
        return ContrastiveTrainer(recipe, data=data, device=torch.device("cpu"), cache=Cache())

    def measured(recipe):
        """Seconds before the last phase, and a step of it."""
        *before, last = dry_run(begun(recipe)).phases
        before_seconds = sum((phase.last - phase.first) * min(phase.step_seconds) for phase in before)
        return before_seconds, min(last.step_seconds)

    common = [*shared, "validation.sets=[]", f"seed={seed}"]
    of_first = load_recipe(recipe_file, Recipe, changes=common)
    recipe = load_recipe(recipe_file, Recipe, changes=[*common, *changes])
    first, _ = begun(recipe).phases[-1]
    if changes:
        (before, step), (before_of_first, step_of_first) = measured(recipe), measured(of_first)
        last_steps = max(1, int((before_of_first + last_steps * step_of_first - before) / step))
    recipe = replace(recipe, train=replace(recipe.train, steps=first + last_steps, epochs=None))
    losses, start, run = [], time.perf_counter(), begun(recipe)
    for report in run.train(out):
        losses.append(report.loss)
        if sys.stderr.isatty():
            print(f"\r{report.step:,} of {run.steps:,}: loss {report.loss:.3f}", end="", file=sys.stderr, flush=True)
    return {
        "steps": run.steps,
        "last": last_steps,
        "seconds": time.perf_counter() - start,
        "loss": float(np.mean(losses[-20:])),
    }


def judge(model_folder, data, out):
    """Which samples were right, by kind: a digit each, the least k of `KS` at which it is, or 0."""
    from clipact.cache import Cache
    from clipact.data.protocol import load_protocol
    from clipact.evaluate import EvalOptions, manifest_protocol, read_samples
    from clipact.evaluate.run_protocol import ProtocolOverrides, run_protocol
    from clipact.metrics import best_ranks, match_captions
    from clipact.models.zoo import load_model

    def digits(ranks):
        return "".join(str(next((k for k in KS if rank < k), 0)) for rank in ranks)

    def answer(protocol, samples):
        return run_protocol(protocol, samples, model, out, options=EvalOptions(cache=Cache()))[0]

    model = load_model(str(model_folder), device="cpu", precision="auto")
    captions, _ = ProtocolOverrides(frames=1).apply(manifest_protocol(str(data / CAPTIONS), split="dev"))
    pictures = answer(captions, read_samples(captions, (data / CAPTIONS).parent))
    protocol = load_protocol(SPORTS)
    sports = answer(protocol, read_samples(protocol, data))
    of_text, of_picture = match_captions(pictures.texts, pictures.text_of, len(pictures.samples))
    return {
        "of_text": pictures.text_of.tolist(),
        "text_to_picture": digits(best_ranks(pictures.similarity, of_text)),
        "picture_to_text": digits(best_ranks(pictures.similarity.T, of_picture)),
        "sports": digits(best_ranks(sports.scores, list(sports.truth[:, None]))),
    }


def apart(function, *arguments):
    """What the function gives in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


class Found:
    """What runs came to, kept in a file as soon as it is known. A variant that was changed since is not known."""

    def __init__(self, file):
        self.file = file
        kept = json.loads(file.read_text()) if file.is_file() else {"of_text": [], "runs": {}}
        self.of_text, self.runs = kept["of_text"], kept["runs"]

    def known(self, name, asked):
        """The run, if it was asked just so; else nothing."""
        run = self.runs.get(name)
        return run if run and run["asked"] == asked else None

    def keep(self, name, run):
        """Adds a run, and writes the file; what another process found meanwhile stays in it."""
        self.of_text = run.pop("of_text")
        self.runs = Found(self.file).runs | {name: run}
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(run)}" for name, run in self.runs.items())
        with atomic_write(self.file) as beside:
            beside.write(f'{{"of_text": {json.dumps(self.of_text)},\n"runs": {{\n{lines}\n}}}}\n'.encode())


@dataclass(frozen=True)
class Ablation:
    """The runs of a table's variants, each done once."""

    recipe: Path
    shared: list
    last_steps: int
    variants: dict
    data: Path
    out: Path
    found: Found

    def folder(self, name, seed):
        """Where a run is kept."""
        return self.out / f"{name}--{seed}".replace(" ", "-").replace(":", "").replace(",", "")

    def run(self, name, seed, *, teaches=False):
        """What a run came to, known or sought now; when it teaches, its model is in `out`."""
        variant, run_name, folder = self.variants[name], f"{name}, seed {seed}", self.folder(name, seed)
        asked = {key: variant.get(key, []) for key in ("set", "teachers")}
        asked |= {"last_steps": self.last_steps, "shared": self.shared}
        if (known := self.found.known(run_name, asked)) and (not teaches or (folder / "run/last").is_dir()):
            return known
        changes = list(asked["set"])
        if teachers := asked["teachers"]:
            for teacher in teachers:
                self.run(teacher, 0, teaches=True)
            changes.append(
                f"distillation.teachers={json.dumps([str(self.folder(one, 0) / 'run/last') for one in teachers])}"
            )
        shutil.rmtree(folder, ignore_errors=True)
        print(run_name, file=sys.stderr)
        run = {"asked": asked} | apart(
            train, self.recipe, self.shared, changes, seed, self.last_steps, self.data, folder / "run"
        )
        run |= apart(judge, folder / "run/last", self.data, folder)
        self.found.keep(run_name, run)
        return run


FIGURES = (("text_to_picture", 1), ("text_to_picture", 5), ("picture_to_text", 1), ("sports", 1))


def right(runs, kind, k):
    """The share of seeds that were right, by sample."""
    within = [str(one) for one in KS if one <= k]
    return np.mean([np.isin(list(run[kind]), within) for run in runs], axis=0)


def row(name, runs, base, of_text):
    """A line of the table: each figure, and its difference from the base with its interval."""
    from clipact.metrics import paired_bootstrap

    shown = []
    for kind, k in FIGURES:
        own, other = right(runs, kind, k), right(base, kind, k)
        if runs is base:
            shown.append(f"{own.mean():.1%}")
            continue
        found = paired_bootstrap(
            lambda rows, own=own: float(own[rows].mean()),
            lambda rows, other=other: float(other[rows].mean()),
            len(own),
            groups=[str(one) for one in (of_text if kind == "text_to_picture" else range(len(own)))],
        )
        shown.append(f"{own.mean():.1%} ({100 * found.low:+.1f} to {100 * found.high:+.1f})")
    steps = "/".join(str(run["last"]) for run in runs)
    return f"| {name} | {len(runs)} | {steps} | {' | '.join(shown)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="variants beside the first")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    table = tomllib.loads(given.table.read_text())
    ablation = Ablation(
        recipe=given.table.parent / table["recipe"],
        shared=table.get("set", []),
        last_steps=table["last_steps"],
        variants={variant["name"]: variant for variant in table["variants"]},
        data=given.data,
        out=given.out,
        found=Found(given.table.with_suffix(".json")),
    )
    first, *others = ablation.variants
    base, failed = [], False
    print("| variant | seeds | last steps | text to picture @1 | @5 | picture to text @1 | sports22-dev |")
    print("|---|---|---|---|---|---|---|")
    for name in [first, *(one for one in others if given.only is None or one in given.only)]:
        try:
            runs = [ablation.run(name, seed) for seed in range(ablation.variants[name].get("seeds", 1))]
        except Exception as error:
            if name == first:
                raise
            failed = True
            print(f"| {name} | failed: {str(error).splitlines()[0]} |", flush=True)
            continue
        base = base or runs
        print(row(name, runs, base, ablation.found.of_text), flush=True)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
