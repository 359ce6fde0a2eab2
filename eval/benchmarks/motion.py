"""Which towers see motion: trained on drawn clips with sentences, asked about combinations that they never saw.

    python eval/benchmarks/motion.py [--towers vivit swin3d] [--steps 1200] [--seed 0] [--json]

A coloured shape moves over grey noise: "a red square moves left" (drawn_motion.py). First an image tower, a vision
transformer of open_clip's build, learns from still pictures, "a red square at the top left", as in practice a video
tower starts from CLIP. Then each video tower learns the moving clips: those over frames keep the image tower, ViViT is
inflated from it, the others begin at random; the text tower is the same for all (motion_towers.py). All is done by the
loop of `clipact train`: the same clips in the same order, the same batch, steps, rate and seed.

Each is asked, from the folder that it was saved in, to choose among all 96 sentences. Who cannot see order is right
about one of a clip and its reverse at most, and half the time between a sentence and its opposite. X-CLIP is not here:
it cannot be trained. Exit code 1, with a sentence for each, when a tower that sees order is right about less than 95 %
of the clips of unseen combinations, or one that does not is not at chance between a sentence and its opposite.

Half the time in two processes of one thread each: OMP_NUM_THREADS=1, `--towers frames` and `--towers vivit swin3d
transformers`.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from drawn_motion import CLIPS, MOTIONS, PAIRS, STILLS, draw_data
from motion_towers import CLIPS_BUDGET, STILLS_BUDGET, TOWERS, train_clips, train_stills

from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.evaluate import evaluate
from clipact.metrics import hits
from clipact.prompts import LabelSet

LEAST = 0.95  # of a tower that sees order, on unseen combinations
TIE = 1e-4  # backwards, the same frames give a tower without order the same logits but for rounding


def judge(folder, items):
    """Of a saved model: top-1 among all sentences, and how often a sentence is preferred to its opposite."""
    sentences = [motion.sentence for motion in MOTIONS]
    labels = LabelSet.of(sentences, phrases=sentences)
    classifier = ZeroShotClassifier.load(str(folder), labels=labels, prompts="bare", device="cpu")
    result = evaluate(classifier, items)
    assert not result.unreadable
    right = hits(result.scores, result.truth)
    opposite = np.array([sentences.index(motion.opposite.sentence) for motion in MOTIONS])[result.truth]
    rows = np.arange(len(result.truth))
    ahead = result.scores[rows, result.truth] - result.scores[rows, opposite]
    between = np.where(abs(ahead) < TIE, 0.5, ahead > 0)  # a tie is half right
    unseen = np.array([motion.held_out for motion in MOTIONS])[result.truth]
    return {
        "unseen": float(right[unseen].mean()),
        "seen": float(right[~unseen].mean()),
        "opposites": float(between[unseen].mean()),
        "clips": int(unseen.sum()),
    }


def failures(rows):
    """A sentence for each thing that is not as it must be."""
    for name, row in rows.items():
        if row["order"] and row["unseen"] < LEAST:
            yield (
                f"{name} sees order, but is right about {100 * row['unseen']:.1f} % of the {row['clips']} clips of "
                f"unseen combinations; {100 * LEAST:.0f} % is the least"
            )
        if not row["order"] and abs(row["opposites"] - 0.5) > 0.01:
            yield (
                f"{name} says that it does not see order, but prefers a sentence to its opposite "
                f"{100 * row['opposites']:.1f} % of the time; chance is 50 %"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--towers", nargs="+", default=[""], help="those whose names hold a word; all by default")
    parser.add_argument("--steps", type=int, default=CLIPS_BUDGET.steps, help="of each tower, on the clips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    towers = {name: tower for name, tower in TOWERS.items() if any(word in name for word in given.towers)}
    if not towers:
        parser.error(f"no tower's name holds {' or '.join(given.towers)}: {', '.join(TOWERS)}")
    budget, rows = replace(CLIPS_BUDGET, steps=given.steps), {}
    if not given.json:
        learnt = sum(not motion.held_out for motion in MOTIONS)
        print(f"the image tower, once: {STILLS} pictures of each look in each of nine places, {STILLS_BUDGET}")
        print(f"every video tower alike: {CLIPS} clips of each of {learnt} sentences, {budget}")
        print(f"asked: {PAIRS} clips of each two opposites, each forwards and backwards; seed {given.seed}\n")
        print("| tower | sees order | M parameters | unseen, top-1 | seen, top-1 | opposites, unseen | s |")
        print(f"|{'---|' * 7}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        data = Path(place)
        tests = draw_data(data, seed=given.seed)
        stills = train_stills(data, seed=given.seed)
        for number, (name, tower) in enumerate(towers.items()):
            begun = time.perf_counter()
            encoder, folder = train_clips(tower, stills, data, data / f"run{number}", budget=budget, seed=given.seed)
            rows[name] = row = {
                **judge(folder, tests),
                "order": not encoder.visual.order_free,
                "parameters": sum(one.numel() for one in encoder.visual.parameters()),
                "seconds": time.perf_counter() - begun,
            }
            if not given.json:
                print(
                    f"| {name} | {'yes' if row['order'] else 'no'} | {row['parameters'] / 1e6:.2f} "
                    f"| {100 * row['unseen']:.1f} | {100 * row['seen']:.1f} | {100 * row['opposites']:.1f} "
                    f"| {row['seconds']:.0f} |",
                    flush=True,
                )
    failed = list(failures(rows))
    if given.json:
        budgets = {"stills": vars(STILLS_BUDGET), "clips": vars(budget), "seed": given.seed}
        print(json.dumps({"budgets": budgets, "towers": rows, "failed": failed}, indent=2))
    else:
        print("\n" + "\n".join(failed or [f"all {len(rows)} as they must be"]))
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
