"""One contrastive step by others' code, so that it can be measured beside ours. No program of its own.

GradCache (github.com/luyug/GradCache) and open_clip's accumulation (--accum-freq, github.com/mlfoundations/open_clip)
are used as they are, from a checkout of each; nothing of theirs is copied here.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clipact.losses import LOSSES
from clipact.train.chunks import Encoder


@dataclass
class Problem:
    """Two encoders, a batch for each, and a loss with its own parameters."""

    encoders: Sequence[Encoder]
    inputs: Sequence[Any]
    log_scale: nn.Parameter
    loss: str = "info_nce"
    bias: nn.Parameter | None = None
    ids: Sequence[torch.Tensor] = ()

    def loss_at(self, visual, text, scale, bias):
        """The loss for peers that pass scale and bias on."""
        return LOSSES[self.loss](visual, text, scale=scale, bias=bias, ids=self.ids)

    def loss_fn(self, visual, text):
        """The loss with its own parameters."""
        return self.loss_at(visual, text, self.log_scale.exp(), self.bias)

    def chunks(self, chunk_size):
        """Rows of both sides together, as a data loader would give them."""
        count = len(self.inputs[0])
        return [
            tuple(side[start : start + chunk_size] for side in self.inputs) for start in range(0, count, chunk_size)
        ]

    def towers(self):
        """Every parameter but the loss's."""
        return list(dict.fromkeys(p for encoder in self.encoders for p in encoder.module.parameters()))

    def clear(self):
        """Forget all gradients."""
        for parameter in [*self.towers(), self.log_scale, self.bias]:
            if parameter is not None:
                parameter.grad = None


Step = Callable[..., Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gradcache", type=Path, help="a checkout of github.com/luyug/GradCache")
    parser.add_argument("--open-clip", type=Path, help="a checkout of github.com/mlfoundations/open_clip")


def load_peers(arguments) -> dict[str, Step]:
    """Steps `(problem, chunk_size)` by name, of the peers whose checkout was given."""
    peers = {}
    if arguments.gradcache:
        peers["GradCache"] = load_gradcache(arguments.gradcache)
    if arguments.open_clip:
        peers["open_clip"] = load_open_clip(arguments.open_clip)
    return peers


def load_gradcache(folder: Path) -> Step:
    sys.path.insert(0, str(folder / "src"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from grad_cache import GradCache

    def step(problem: Problem, chunk_size: int) -> None:
        encode = [encoder.encode for encoder in problem.encoders]
        GradCache(models=encode, chunk_sizes=chunk_size, loss_fn=problem.loss_fn)(*problem.inputs)

    return step


def load_open_clip(folder: Path) -> Step:
    sys.path.insert(0, str(folder / "src"))
    from open_clip.task.clip_task import CLIPTask
    from open_clip_train.precision import get_autocast
    from open_clip_train.train import _train_step_eager

    class Pair(nn.Module):
        def __init__(self, problem):
            super().__init__()
            self.problem = problem
            self.logit_scale = problem.log_scale

        def forward(self, image, text):
            visual, words = self.problem.encoders
            made = {"image_features": visual.encode(image), "text_features": words.encode(text)}
            made["logit_scale"] = self.logit_scale.exp()
            if self.problem.bias is not None:
                made["logit_bias"] = self.problem.bias
            return made

    class Loss(nn.Module):
        def __init__(self, problem):
            super().__init__()
            self.problem = problem

        def forward(self, image_features, text_features, logit_scale, logit_bias=None, output_dict=True):
            value = self.problem.loss_at(image_features, text_features, logit_scale, logit_bias)
            return {"contrastive_loss": value}

    class NoOptimizer:
        def zero_grad(self):
            pass

        def step(self):
            pass

    def step(problem: Problem, chunk_size: int) -> None:
        batches = problem.chunks(chunk_size)
        arguments = argparse.Namespace(accum_freq=len(batches), grad_clip_norm=None)
        task, accumulated = CLIPTask(Pair(problem), loss=Loss(problem)), ([], {})
        autocast = get_autocast("fp32")
        for image, text in batches:
            batch = {"image": image, "text": text}
            _train_step_eager(task, batch, accumulated, NoOptimizer(), None, autocast, arguments)

    return step
