"""Which towers see motion: trained on drawn clips with sentences, asked about combinations that they never saw.

    python eval/benchmarks/motion.py [--towers vivit] [--steps 400] [--json]

A shape moves over grey noise: 6 colours x 4 shapes x 4 directions, "a red square moves left". Six pairs of a look and
an axis are held out, one of each colour, with both directions: every colour, shape and direction is learnt from, and
every two of them together, but 12 of the 96 sentences are not.

First an image tower (a vision transformer of open_clip's build) learns from still pictures, "a red square at the top
left", as in practice a video tower starts from CLIP. Then each video tower learns the moving clips: those over frames
keep the image tower, ViViT is inflated from it, the others begin at random; the text tower is the same for all. All is
done by the loop of `clipact train`: the same clips in the same order, the same batch, steps, rate and seed. Each is
asked, from the folder that it was saved in, to choose among all 96 sentences.

Every test clip is there backwards, too, with the opposite direction: who cannot see order is right about one of the two
at most, and half the time between a sentence and its opposite. X-CLIP is not here: it cannot be trained.
"""

import argparse
import csv
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from clipact.classifier import ZeroShotClassifier
from clipact.config import parse
from clipact.evaluate import Item, evaluate
from clipact.metrics import hits
from clipact.prompts import LabelSet
from clipact.store import Store
from clipact.training.loop import Run
from clipact.training.recipe import Recipe

FRAMES, SIDE, RADIUS = 8, 32, 5
ROOM = SIDE - (2 * RADIUS + 1)  # pixels that a shape can be moved by
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
COLOURS = {
    "red": (230, 40, 40),
    "green": (40, 200, 60),
    "blue": (60, 90, 250),
    "yellow": (240, 220, 40),
    "white": (250, 250, 250),
    "purple": (190, 50, 220),
}
SHAPES = ("square", "ring", "cross", "dot")
AXES = (("left", "right"), ("up", "down"))
STEPS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}  # rows, columns
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}


@dataclass(frozen=True)
class Motion:
    """What is to be seen in a clip."""

    colour: str
    shape: str
    direction: str

    @property
    def sentence(self):
        """What is said of it."""
        return f"a {self.colour} {self.shape} moves {self.direction}"

    @property
    def opposite(self):
        """The same, the other way."""
        return Motion(self.colour, self.shape, OPPOSITE[self.direction])

    @property
    def held_out(self):
        """Whether no clip of it is learnt from; the opposite is held out with it."""
        colour, shape = list(COLOURS).index(self.colour), SHAPES.index(self.shape)
        return shape == colour % 4 and (self.direction in AXES[1]) == bool(colour % 2)


MOTIONS = [Motion(c, s, d) for c in COLOURS for s in SHAPES for axis in AXES for d in axis]


def draw_shape(shape, radius):
    """A square picture of 0 and 1, `2 radius + 1` pixels wide."""
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    away = np.hypot(rows, columns)
    return {
        "square": np.ones_like(rows, dtype=bool),
        "ring": (away <= radius + 0.5) & (away > radius - 1.5),
        "cross": (abs(rows) <= 1) | (abs(columns) <= 1),
        "dot": away <= radius / 2,
    }[shape]


def paint(motion, corners, generator):
    """Frames (t, h, w, c), uint8, with the upper left corner of the shape at `corners`; the background is random."""
    mask = draw_shape(motion.shape, RADIUS)
    shape = (len(corners), SIDE, SIDE, 3)
    frames = generator.integers(20, 90) + generator.normal(0, 4, shape)
    for frame, (top, left) in zip(frames, corners, strict=True):
        frame[top : top + len(mask), left : left + len(mask)][mask] = COLOURS[motion.colour]
    return frames.clip(0, 255).astype(np.uint8)


def draw_clip(motion, generator):
    """A clip: the shape moves at a random pace, from a random place from which it stays in the picture."""
    pace = generator.uniform(1.6, 2.6)
    travelled = np.round(pace * np.arange(FRAMES)[:, None] * np.array(STEPS[motion.direction])).astype(int)
    low, high = -travelled.min(0), ROOM - travelled.max(0)
    return paint(motion, generator.integers(low, high + 1) + travelled, generator)


def draw_still(motion, place, generator):
    """A picture: the shape somewhere in one of nine places."""
    corner = [int(generator.integers(ninth * (ROOM + 1) // 3, (ninth + 1) * (ROOM + 1) // 3)) for ninth in place]
    return paint(motion, [corner], generator)[0]


def write_clip(path, frames, *, container=None):
    """Uncompressed: what is drawn is what is seen. The container follows from the name, or is given."""
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream("rawvideo", rate=len(frames))
        (stream.height, stream.width), stream.pix_fmt = frames.shape[1:3], "bgr24"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr24")))
        file.mux(stream.encode(None))


def draw_data(folder, given):
    """Writes stills.csv and clips.csv with their files; gives the test clips, each forwards and backwards."""
    for name in ("stills", "clips"):
        (folder / name).mkdir(parents=True)
    generator = np.random.default_rng(given.seed)
    stills, clips, tests = [], [], []
    for motion in MOTIONS:
        if motion.direction == "left":  # once for each look
            for place in np.ndindex(3, 3):
                where = f"a {motion.colour} {motion.shape} at the {ROWS[place[0]]} {COLUMNS[place[1]]}"
                for number in range(STILLS):
                    stills.append({"path": f"stills/{where} {number}.png", "caption": where})
                    Image.fromarray(draw_still(motion, place, generator)).save(folder / stills[-1]["path"])
        for number in range(0 if motion.held_out else given.clips):
            clips.append({"path": f"clips/{motion.sentence} {number}.avi", "caption": motion.sentence})
            write_clip(folder / clips[-1]["path"], draw_clip(motion, generator))
    for motion in (one for one in MOTIONS if one.direction in ("left", "up")):
        for number in range(given.pairs):
            frames = draw_clip(motion, generator)
            for shown, way in ((motion, frames), (motion.opposite, frames[::-1])):
                path = folder / f"clips/test {shown.sentence} {number}.avi"
                write_clip(path, way)
                tests.append(Item(name=path.name, path=path, label=shown.sentence))
    for name, rows in (("stills", stills), ("clips", clips)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, ["path", "caption"])
            table.writeheader()
            table.writerows(rows)
    return tests


def write_words(folder):
    """A tokenizer that knows the words of the sentences; returns its file and how many there are."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    said = " ".join(motion.sentence for motion in MOTIONS).split()
    words = ["[PAD]", "[UNK]", *dict.fromkeys((*said, "at", "the", *ROWS, *COLUMNS))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json", len(words)


STILLS = 12  # of each look in each place
WIDTH, LAYERS, HEADS = 64, 2, 4
HEAD = {"dim": WIDTH, "blocks": 0}
VISION = {"image_size": SIDE, "patch_size": 8, "width": WIDTH, "head_width": WIDTH // HEADS, "layers": LAYERS}
IMAGE = {"tower": "open_clip", "model": {"embed_dim": WIDTH, "vision_cfg": {**VISION, "mlp_ratio": 2.0}}}
THEIRS = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * WIDTH,
    "image_size": SIDE,
    "patch_size": 8,
    "num_frames": FRAMES,
}
VJEPA = {key: value for key, value in THEIRS.items() if key not in ("intermediate_size", "image_size", "num_frames")}
VJEPA |= {"crop_size": SIDE, "frames_per_clip": FRAMES, "mlp_ratio": 2.0, "pred_num_hidden_layers": 1}
VJEPA |= {"pred_hidden_size": WIDTH, "pred_num_attention_heads": HEADS}


def transformers_tower(model_type, table):
    return {"tower": "transformers", "head": HEAD, "model": {"model_type": model_type, **table}}


TOWERS = {
    "frames, mean": {"tower": "frames", "aggregator": "mean"},
    "frames, max": {"tower": "frames", "aggregator": "max"},
    "frames, attention": {"tower": "frames", "aggregator": "attention"},
    "frames, transformer": {"tower": "frames", "aggregator": "transformer"},
    "frames, convolution": {"tower": "frames", "aggregator": "convolution"},
    "frames, lstm": {"tower": "frames", "aggregator": "lstm"},
    "frames, shift, mean": {"tower": "frames", "aggregator": "mean", "shift": 0.125},
    "vivit, joint": {"tower": "vivit", "inflate": "central", "attention": "joint"},
    "vivit, factorised_encoder": {"tower": "vivit", "inflate": "central", "attention": "factorised_encoder"},
    "vivit, factorised_self": {"tower": "vivit", "inflate": "central", "attention": "factorised_self"},
    "swin3d": {"tower": "swin3d", "width": 32, "depths": [2, 2], "heads": [2, 4], "window": [4, 4, 4], "head": HEAD},
    "transformers, videomae": transformers_tower("videomae", {**THEIRS, "tubelet_size": 2}),
    "transformers, timesformer": transformers_tower("timesformer", THEIRS),
    "transformers, vivit": transformers_tower("vivit", {**THEIRS, "tubelet_size": [2, 8, 8]}),
    "transformers, vjepa2": transformers_tower("vjepa2", {**VJEPA, "tubelet_size": 2}),
}


def recipe_of(start, source, *, batch, steps, given):
    """The same for all towers but for what it starts from."""
    table = {
        "name": "motion",
        "trained_on": ["drawn motion"],
        "seed": given.seed,
        "start": {"clip": {"frames": FRAMES, "size": [SIDE, SIDE], "mean": [0.5] * 3, "std": [0.25] * 3}, **start},
        "data": {"sources": [source], "workers": 1},
        "train": {"batch": batch, "chunk": source["frames"] * batch, "steps": steps, "memory_gb": 4.0},
        "optim": {"lr": given.lr, "weight_decay": 0.05, "warmup_steps": steps // 10, "clip_norm": 1.0},
    }
    return parse(Recipe, table)


def train(recipe, data, out):
    """The model that the recipe makes, and the folder it was saved in."""
    run = Run(
        recipe,
        data=data,
        device=torch.device("cpu"),
        store=Store(data / "store"),
        watch=lambda items, total, what: items,
    )
    for _ in run.train(out):
        pass
    return run.encoder, out / "last"


def train_stills(data, given):
    """The folder of a model of still pictures, from random weights."""
    words, count = write_words(data)
    text = {"tower": "bert", "vocabulary": count, "width": WIDTH, "layers": 1, "heads": 2, "hidden": 2 * WIDTH}
    start = {
        "visual": {"tower": "frames", "image": IMAGE},
        "text": {**text, "max_tokens": 16, "head": HEAD},
        "parts": {"tokenizer": str(words)},
    }
    recipe = recipe_of(start, {"manifest": "stills.csv", "frames": 1}, batch=64, steps=400, given=given)
    return train(recipe, data, data / "stills_run")[1]


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
    # Backwards the same frames give a tower without order the same logits but for rounding: a tie is half right.
    ahead = result.scores[rows, result.truth] - result.scores[rows, opposite]
    between = np.where(abs(ahead) < 1e-4, 0.5, ahead > 0)
    unseen = np.array([motion.held_out for motion in MOTIONS])[result.truth]
    return {
        "unseen": float(right[unseen].mean()),
        "seen": float(right[~unseen].mean()),
        "opposites": float(between[unseen].mean()),
        "clips": int(unseen.sum()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--towers", default="", help="those whose names hold these words; all by default")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--clips", type=int, default=40, help="to learn from, of each sentence that is learnt")
    parser.add_argument("--pairs", type=int, default=20, help="to be asked about, of each sentence and its opposite")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as place:
        data = Path(place)
        tests = draw_data(data, given)
        stills = train_stills(data, given)
        if not given.json:
            learnt = sum(not motion.held_out for motion in MOTIONS)
            print(
                f"{learnt} sentences, {given.clips} clips each; {given.steps} steps of {given.batch}, lr {given.lr}\n"
            )
            print("| tower | sees order | M parameters | unseen, top-1 | seen, top-1 | opposites, unseen | s |")
            print("|---|---|---|---|---|---|---|", flush=True)
        for number, (name, tower) in enumerate(TOWERS.items()):
            if given.towers not in name:
                continue
            begun = time.perf_counter()
            start, source = {"model": str(stills), "visual": tower}, {"manifest": "clips.csv", "frames": FRAMES}
            recipe = recipe_of(start, source, batch=given.batch, steps=given.steps, given=given)
            encoder, folder = train(recipe, data, data / f"run{number}")
            found = judge(folder, tests)
            visual = encoder.visual
            found |= {
                "order": not visual.order_free,
                "parameters": sum(one.numel() for one in visual.parameters()),
                "seconds": time.perf_counter() - begun,
            }
            rows[name] = found
            if not given.json:
                print(
                    f"| {name} | {'yes' if found['order'] else 'no'} | {found['parameters'] / 1e6:.2f} "
                    f"| {100 * found['unseen']:.1f} | {100 * found['seen']:.1f} | {100 * found['opposites']:.1f} "
                    f"| {found['seconds']:.0f} |",
                    flush=True,
                )
    if given.json:
        print(json.dumps({"budget": vars(given), "towers": rows}, indent=2))


if __name__ == "__main__":
    main()
