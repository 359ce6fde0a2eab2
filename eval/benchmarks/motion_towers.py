"""The towers of motion.py, what each of them begins from, and the one budget by which all of them learn."""

from dataclasses import dataclass
from typing import get_args

import torch
from drawn_motion import COLUMNS, FRAMES, MOTIONS, ROWS, SIDE

from clipact.cache import Cache
from clipact.config import parse
from clipact.models.towers.frame_aggregator import AGGREGATORS
from clipact.models.towers.vivit import AttentionKind
from clipact.train.contrastive import ContrastiveTrainer
from clipact.train.recipe import Recipe

WIDTH, LAYERS, HEADS = 64, 2, 4
HEAD = {"dim": WIDTH, "blocks": 0}
VISION = {"image_size": SIDE, "patch_size": 8, "width": WIDTH, "head_width": WIDTH // HEADS, "layers": LAYERS}
IMAGE = {"tower": "open_clip", "model": {"embed_dim": WIDTH, "vision_cfg": {**VISION, "mlp_ratio": 2.0}}}
TEXT = {"tower": "bert", "width": WIDTH, "layers": 1, "heads": 2, "hidden": 2 * WIDTH, "max_tokens": 16, "head": HEAD}
THEIRS = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * WIDTH,
    "image_size": SIDE,
    "patch_size": 8,
    "num_frames": FRAMES,
    "initializer_range": WIDTH**-0.5,  # by default 0.02, which suits a width of 768
}
VJEPA = {key: value for key, value in THEIRS.items() if key not in ("intermediate_size", "image_size", "num_frames")}
VJEPA |= {"crop_size": SIDE, "frames_per_clip": FRAMES, "mlp_ratio": 2.0, "pred_num_hidden_layers": 1}
VJEPA |= {"pred_hidden_size": WIDTH, "pred_num_attention_heads": HEADS}


def transformers_tower(model_type, table):
    return {"tower": "transformers", "head": HEAD, "model": {"model_type": model_type, **table}}


TOWERS = {
    **{f"frames {name}": {"tower": "frame_aggregator", "aggregator": name} for name in AGGREGATORS},
    "frames shift": {"tower": "frame_aggregator", "aggregator": "mean", "shift": 0.125},
    **{
        f"vivit {kind}": {"tower": "vivit", "inflate": "central", "attention": kind} for kind in get_args(AttentionKind)
    },
    "swin3d small": {
        "tower": "swin3d",
        "width": 32,
        "depths": [2, 2],
        "heads": [2, 4],
        "window": [4, 4, 4],
        "head": HEAD,
    },
    "transformers videomae": transformers_tower(
        "videomae", {**THEIRS, "num_hidden_layers": LAYERS + 1, "tubelet_size": 2}
    ),
    "transformers timesformer": transformers_tower("timesformer", THEIRS),
    "transformers vivit": transformers_tower("vivit", {**THEIRS, "tubelet_size": [2, 8, 8]}),
    "transformers vjepa2": transformers_tower("vjepa2", {**VJEPA, "tubelet_size": 2}),
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a run may spend: steps of `batch` samples each, at a rate that rises over the first tenth to `lr`."""

    steps: int
    batch: int
    lr: float = 2e-3
    weight_decay: float = 0.05


STILLS_BUDGET = Budget(steps=400, batch=64)
CLIPS_BUDGET = Budget(steps=1200, batch=32)


def train_stills(data, *, seed):
    """The folder of a model of still pictures, from random weights."""
    words, count = write_words(data)
    start = {
        "visual": {"tower": "frame_aggregator", "image": IMAGE},
        "text": {**TEXT, "vocabulary": count},
        "pretrained": {"tokenizer": str(words)},
    }
    source = {"manifest": "stills.csv", "frames": 1}
    return train(start, source, data, data / "stills_run", budget=STILLS_BUDGET, seed=seed)[1]


def train_clips(tower, stills, data, out, *, budget, seed):
    """A model with that tower, which begins from the model of stills, and the folder it was saved in."""
    start, source = {"model": str(stills), "visual": tower}, {"manifest": "clips.csv", "frames": FRAMES}
    return train(start, source, data, out, budget=budget, seed=seed)


def train(start, source, data, out, *, budget, seed):
    """The model that comes of what it starts from, and the folder it was saved in."""
    table = {
        "name": "motion",
        "trained_on": ["drawn motion"],
        "seed": seed,
        "init": {"clip": {"frames": FRAMES, "size": [SIDE, SIDE], "mean": [0.5] * 3, "std": [0.25] * 3}, **start},
        "data": {"sources": [source], "workers": 1},
        "train": {
            "batch": budget.batch,
            "chunk": source["frames"] * budget.batch,
            "steps": budget.steps,
            "graph_memory_gb": 4.0,
        },
        "optim": {
            "lr": budget.lr,
            "weight_decay": budget.weight_decay,
            "warmup_steps": budget.steps // 10,
            "clip_norm": 1.0,
        },
    }
    run = ContrastiveTrainer(
        parse(Recipe, table),
        data=data,
        device=torch.device("cpu"),
        cache=Cache(data / "store"),
    )
    for _ in run.train(out):
        pass
    return run.encoder, out / "last"


def write_words(folder):
    """A tokenizer that knows the words of the sentences; returns its file and how many there are."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    said = " ".join(motion.sentence for motion in MOTIONS).split()
    words = ["[PAD]", "[UNK]", *dict.fromkeys((*said, "at", "the", *ROWS, *COLUMNS))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json", len(words)
