"""Memory of a cached step as the batch grows, and its time as a memory budget grows.

    python eval/benchmarks/gradcache_memory.py [--batches 256,1024,4096] [--budgets 0.25,0.5,1,2] [--json]

Two ViT-Ti/16 at 64 pixels in chunks of 64, one thread, a new process for each figure. Batches: no graph is kept and the
loss is tiled. Budgets: batch 512, the planner's choice for that many GB of graphs, the fewest seconds of a few steps.
Quoted: the peak of resident memory in the step less what was resident before (weights, the batch). Linux only.
"""

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from gradcache_time import make_problem

from clipact.losses import info_nce
from clipact.train.gradcache import cached_step
from clipact.train.graph_budget import GB, plan_graph_budget

CHUNK = 64


def resident(field):
    """VmRSS or VmHWM of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measure(batch, budget, steps):
    """One figure, in this process."""
    torch.set_num_threads(1)
    problem = make_problem("vit", batch=batch)

    def loss_fn(visual, text):
        return info_nce(visual, text, scale=problem.log_scale.exp(), tile=1024)

    def step(inputs, retain=0):
        problem.clear()
        cached_step(problem.encoders, inputs, loss_fn=loss_fn, chunk_size=CHUNK, seed=0, retain=retain)

    plan = (
        plan_graph_budget(problem.encoders, problem.inputs, chunk_size=CHUNK, graph_memory_gb=budget)
        if budget
        else None
    )
    keep = plan.retain if plan else 0
    step([side[:CHUNK] for side in problem.inputs])  # libraries take their buffers at the first call
    problem.clear()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    seconds, processor = [], []
    for _ in range(steps):
        clock, cpu = time.perf_counter(), time.process_time()
        step(problem.inputs, keep)
        seconds.append(time.perf_counter() - clock)
        processor.append(time.process_time() - cpu)
    return {
        "batch": batch,
        "budget_gb": budget,
        "kept": plan and f"{plan.retain[0]} + {plan.retain[1]} of {sum(plan.chunks)}",
        "planned_gb": plan and round(plan.peak_bytes / GB, 3),
        "planned_cost": plan and round(plan.cost, 3),
        "peak_gb": round((resident("VmHWM") - before) / GB, 3),
        "seconds": round(min(seconds), 2),
        "cpu_seconds": round(min(processor), 2),
    }


def fresh(**one):
    command = [sys.executable, __file__, "--one", json.dumps(one)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="256,1024,4096")
    parser.add_argument("--budgets", default="0.25,0.5,0.75,1,1.5,2,3,4")
    parser.add_argument("--steps", type=int, default=3, help="steps a process, of which the best counts for the curve")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(**json.loads(arguments.one))))
        return
    sizes = [fresh(batch=int(batch), budget=None, steps=1) for batch in arguments.batches.split(",") if batch]
    budgets = [float(budget) for budget in arguments.budgets.split(",") if budget]
    curve = [fresh(batch=512, budget=budget, steps=arguments.steps) for budget in budgets]
    if arguments.json:
        print(json.dumps({"batches": sizes, "budgets": curve}))
        return
    for row in sizes:
        print(
            f"batch {row['batch']:5d}: {row['peak_gb']:6.3f} GB, {row['peak_gb'] / sizes[0]['peak_gb']:.2f} x the first"
        )
    for row in curve:
        print(
            f"budget {row['budget_gb']:5.2f} GB: {row['kept']:<14} graphs {row['planned_gb']:6.3f} GB, "
            f"peak {row['peak_gb']:6.3f} GB, {row['seconds']:6.2f} s, {row['cpu_seconds']:6.2f} s cpu, "
            f"expected {row['planned_cost']:.3f} x plain"
        )


if __name__ == "__main__":
    main()
