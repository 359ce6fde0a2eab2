"""How long a contrastive step takes: plain autograd, GradCache, open_clip's accumulation, ours with graphs kept.

    python eval/benchmarks/gradcache_time.py [--gradcache DIR] [--open-clip DIR] [--towers vit,conv] [--json]

Two towers of a kind at 64 pixels (ViT-Ti/16, ResNet-18), batch 512, chunk 64, one thread. Every step takes its turn in
each round, in an order that is turned by one each time. Quoted: the best of the rounds, by the clock and by processor
time (which other programs on the machine disturb less), over plain autograd in the same chunks, and what was promised
for it: (4 - m/k)/3 with m of k graphs kept, at most 3 % more.
"""

import argparse
import gc
import json
import time
from functools import partial

import torch
import torch.nn.functional as F
from gradcache_peers import Problem, add_arguments, load_peers
from torch import nn

from clipact.train.chunks import Encoder
from clipact.train.gradcache import cached_step
from clipact.train.verify_gradient import plain_step

TOWERS = {"vit": ("vit_tiny_patch16_224", {"img_size": 64}), "conv": ("resnet18", {})}


class Unit(nn.Module):
    """A timm model whose features are made unit vectors."""

    def __init__(self, kind):
        super().__init__()
        import timm

        name, options = TOWERS[kind]
        self.model = timm.create_model(name, num_classes=0, **options)

    def forward(self, images):
        """One unit vector a picture."""
        return F.normalize(self.model(images), dim=-1)


def make_problem(kind, *, batch, device="cpu"):
    torch.manual_seed(0)
    towers = [Unit(kind).to(device) for _ in range(2)]
    return Problem(
        encoders=[Encoder(name, tower, tower) for name, tower in zip(("video", "text"), towers, strict=True)],
        inputs=[torch.randn(batch, 3, 64, 64, device=device) for _ in towers],
        log_scale=nn.Parameter(torch.tensor(3.0, device=device)),
    )


def make_steps(problem, peers, *, chunk):
    """Name -> (step, promised time over plain in chunks)."""
    ours = {"encoders": problem.encoders, "inputs": problem.inputs, "loss_fn": problem.loss_fn, "seed": 0}
    chunks = len(problem.chunks(chunk))
    steps = {
        "plain, whole batch": (partial(plain_step, chunk_size=len(problem.inputs[0]), **ours), None),
        "plain, in chunks": (partial(plain_step, chunk_size=chunk, **ours), None),
    }
    steps |= {name: (partial(step, problem, chunk), None) for name, step in peers.items()}
    for kept in (0, chunks // 4, chunks // 2, chunks * 3 // 4, chunks):
        step = partial(cached_step, chunk_size=chunk, retain=kept, **ours)
        steps[f"clipact, {kept} of {chunks} kept"] = (step, (4 - kept / chunks) / 3)
    return steps


def time_steps(problem, steps, rounds):
    """Best seconds by the clock and of the processor, by name."""
    best = {name: (float("inf"), float("inf")) for name in steps}
    names = list(steps)
    steps["plain, in chunks"][0]()  # warms up: libraries, and memory that the process then holds
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            problem.clear()
            gc.collect()
            clock, processor = time.perf_counter(), time.process_time()
            steps[name][0]()
            if problem.log_scale.is_cuda:
                torch.cuda.synchronize()
            seen = time.perf_counter() - clock, time.process_time() - processor
            best[name] = tuple(map(min, best[name], seen))
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--towers", default="vit,conv")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    peers = load_peers(arguments)
    figures = []
    for kind in arguments.towers.split(","):
        problem = make_problem(kind, batch=arguments.batch, device=arguments.device)
        steps = make_steps(problem, peers, chunk=arguments.chunk)
        best = time_steps(problem, steps, arguments.rounds)
        plain = best["plain, in chunks"]
        for name, (_, promised) in steps.items():
            clock, processor = best[name]
            figures.append(
                {
                    "towers": kind,
                    "step": name,
                    "seconds": round(clock, 2),
                    "over_plain": round(clock / plain[0], 3),
                    "cpu_seconds": round(processor, 2),
                    "cpu_over_plain": round(processor / plain[1], 3),
                    "promised": promised and round(1.03 * promised, 3),
                }
            )
            if not arguments.json:
                print_row(figures[-1])
    if arguments.json:
        print(json.dumps(figures))


def print_row(figure):
    promised = f"   at most {figure['promised']:.3f}" if figure["promised"] else ""
    print(
        f"{figure['towers']:<5} {figure['step']:<24} {figure['seconds']:7.2f} s {figure['over_plain']:6.3f} x   "
        f"{figure['cpu_seconds']:7.2f} s cpu {figure['cpu_over_plain']:6.3f} x{promised}",
        flush=True,
    )


if __name__ == "__main__":
    main()
