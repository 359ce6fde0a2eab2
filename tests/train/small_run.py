"""A whole run that takes a second: a network of one convolution, drawn pictures and clips. Also a script, to be killed.

python -m tests.train.small_run DATA MODEL OUT CACHE MOMENT [--resume]
"""

import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clipact.cache import Cache
from clipact.clip_spec import ClipSpec
from clipact.config import parse
from clipact.models import save_checkpoint, towers
from clipact.models.dual_encoder import DualEncoder
from clipact.models.save_checkpoint import save_model
from clipact.models.towers.frame_aggregator import FrameAggregator
from clipact.models.towers.text import BertText
from clipact.models.towers.tower import HasHead, Head, ImageTower
from clipact.train.contrastive import ContrastiveTrainer
from clipact.train.recipe import Recipe
from tests.tiny import tiny_tokenizer


class SmallImage(ImageTower, HasHead):
    """One convolution with batch norm, then a head with dropout."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        head: Head.Config = field(default_factory=lambda: Head.Config(dim=16, hidden=16, dropout=0.2))

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.spec = config, ClipSpec(frames=1, size=(16, 16))
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.BatchNorm2d(8)
        self.head = Head(8, config.head)
        self.dim = self.head.dim

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f"]:
        return self.norm(self.stem(images)).relu().mean((2, 3))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        return self.head(self.features(images))


towers.IMAGE_TOWERS["small"] = SmallImage


def small_model(folder: Path) -> Path:
    torch.manual_seed(0)
    visual = FrameAggregator(SmallImage(SmallImage.Config()), spec=ClipSpec(frames=4, size=(16, 16)))
    head = Head.Config(dim=16, hidden=16, dropout=0.2)
    sizes = BertText.Config(vocabulary=64, width=16, layers=1, heads=2, hidden=32, max_tokens=32, head=head)
    text = BertText(sizes, tiny_tokenizer(folder.parent / "tokenizer.json"))
    return save_model(DualEncoder(visual, text, log_scale=2.0, bias=-2.0), folder, name="small")


def small_recipe(model: Path, *, sentences: int = 1, **tables) -> Recipe:
    """Pictures and clips of two each in one stream, augmented; dropout, batch norm, a moving average of weights."""
    said = {"sentences": sentences}
    table = {
        "name": "small",
        "trained_on": ["drawn"],
        "init": {"model": str(model)},
        "data": {
            "sources": [{"manifest": "pictures.csv"} | said, {"manifest": "clips.csv", "frames": 4, "clips": 2} | said],
            "augment": {"brightness": 0.2},
            "workers": 0,
        },
        "train": {"batch": 5, "chunk": 8, "steps": 8},
        "optim": {"lr": 1e-2, "ema_decay": 0.9, "warmup_steps": 2, "clip_norm": 1.0},
        "validation": {"every_steps": 3, "sets": [{"name": "dev", "manifest": "pictures.csv", "split": "test"}]},
    }
    for name, values in tables.items():
        table[name] = table.get(name, {}) | values if isinstance(values, dict) else values
    return parse(Recipe, table)


def small_run(recipe: Recipe, data: Path, cache: Path) -> ContrastiveTrainer:
    return ContrastiveTrainer(recipe, data=data, device=torch.device("cpu"), cache=Cache(cache))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed_at(moment: str) -> None:
    """Arrange for this process to be killed: in its step 4, or half way through a file.

    That of the state after 2 steps ("save"), or that of a model ("model").
    """
    from clipact.train import contrastive as loop
    from clipact.train import state

    save, step, steps = state.save_file, loop.take_step, []

    def dying_model(tensors, path, **options):
        if moment == "model":
            Path(path).write_bytes(b"half")
            _die()
        save(tensors, path, **options)

    def dying_step(*words, **options):
        steps.append(1)
        if moment == "step" and len(steps) == 4:
            _die()
        return step(*words, **options)

    def dying_save(tensors, path, **options):
        save(tensors, path, **options)
        if moment == "save" and len(steps) == 2:
            os.truncate(path, path.stat().st_size // 2)
            _die()

    loop.take_step, state.save_file, save_checkpoint.save_file = dying_step, dying_save, dying_model


if __name__ == "__main__":
    data, model, out, cache, moment = sys.argv[1:6]
    _killed_at(moment)
    recipe = small_recipe(Path(model), data={"workers": 2}, train={"save_minutes": 0.0})
    for _ in small_run(recipe, Path(data), Path(cache)).train(Path(out), resume="--resume" in sys.argv):
        pass
