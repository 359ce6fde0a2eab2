"""What a clip costs each tower at several lengths, beside the plain loop over the same weights, in one run.

    python eval/benchmarks/tower_speed.py [--towers vivit swin3d] [--rounds 4] [--json]

tower_cases.py says which towers, and what the plain loop of each is: frame by frame or clip by clip, as a user of
open_clip, transformers, timm or torchvision writes it. Both are given one clip at a time and hold the same tensors.

Ways alternate in one process, the best of each counts: --rounds times each, short ones for a second; a row that looks
slower than its loop is measured three times as long before that is believed. GFLOPs are torch's count of ours; a share
is of what a product of two 2048 x 2048 matrices reaches in the same process, in fp32 and in bf16. bf16 is autocast.
torch.compile is tried at 8 frames of a few, half a minute each. Memory is what the first clip takes at most, above what
lay in memory before it, in a fresh process for each way; Linux alone says that.

Exit code 1 when an answer is further than 1e-5 from the loop's, both of unit length, or a row is slower: below 0.97 of
the loop's speed. Needs a checkout and 8 GB; 25 minutes on two cores.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tower_cases import CASES

from clipact.models.dual_encoder import DualEncoder
from clipact.models.hub.transformers import quiet_transformers
from clipact.models.profile import profile_model

APART, SLOWER, FASTER = 1e-5, 0.97, 1.05
SECONDS = 1.0  # a way that takes less than its share of it is asked more often


def seconds(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def product_gflops(dtype, *, side=2048, repeats=5):
    """10^9 operations a second of a matrix product: the best of some, after one that warms up."""
    a = torch.randn(side, side).to(dtype)
    return 2 * side**3 / min([seconds(lambda: a @ a) for _ in range(repeats + 1)][1:]) / 1e9


def make(name, frames):
    """Our tower, the loop, and a clip."""
    torch.manual_seed(0)
    with quiet_transformers(), contextlib.redirect_stdout(sys.stderr):
        ours, loop = CASES[name].make(frames)
    size = ours.spec.size
    return ours, loop, torch.randn(1, frames, 3, *size, generator=torch.Generator().manual_seed(1))


def peak_megabytes(work):
    """How much memory `work` takes at most, above what is taken before it; None where the system does not say."""
    marks = Path("/proc/self/clear_refs")
    if not marks.exists():
        return None
    marks.write_text("5")  # forgets the peak so far: making a model takes more than using it
    before = memory_kilobytes("VmRSS")
    work()
    return (memory_kilobytes("VmHWM") - before) / 1024


def memory_kilobytes(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind))


def best_of(ways, *, rounds):
    """The least seconds of each way, the ways taking turns."""
    best = {way: seconds(work) for way, work in ways.items()}
    turns = max(rounds, min(50, int(SECONDS / sum(best.values()))))
    for turn in range(1, 3 * turns):
        if turn >= turns and ("loop" not in best or best["loop"] >= SLOWER * best["clipact"]):
            break
        for way in list(ways) if turn % 2 else reversed(ways):
            best[way] = min(best[way], seconds(ways[way]))
    return best


@torch.inference_mode()
def time_one(name, frames, *, rounds):
    """All of a row but for the loop's memory; ours is taken before anything else has run."""
    from tests.tiny import TinyText

    ours, loop, video = make(name, frames)
    megabytes = peak_megabytes(lambda: ours(video))
    ways = {"clipact": lambda: ours(video)} | ({"loop": lambda: loop(video)} if loop else {})

    def halved():
        with torch.autocast("cpu", torch.bfloat16):
            return ours(video)

    ways["bf16"] = halved
    if frames in CASES[name].compiled:
        faster = torch.compile(ours)
        ways["compile"] = lambda: faster(video)
    answers = {way: F.normalize(work().float(), dim=-1) for way, work in ways.items()}  # warms up, too
    peaks = {kind: product_gflops(dtype) for kind, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    best = best_of(ways, rounds=rounds)
    peaks = {
        kind: max(peaks[kind], product_gflops(dtype))
        for kind, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    gflops = profile_model(
        DualEncoder(ours, TinyText(ours.dim)).eval(), spec=ours.spec.with_frames(frames), repeats=1
    ).gflops
    base = answers["loop" if loop else "clipact"]
    return {
        "milliseconds": {way: 1e3 * value for way, value in best.items()},
        "megabytes": {"clipact": megabytes},
        "gflops": gflops,
        "product_gflops": peaks,
        "share_of_peak": {
            kind: gflops / best[way] / peaks[kind] for kind, way in (("fp32", "clipact"), ("bf16", "bf16"))
        },
        "apart": {way: (answer - base).abs().max().item() for way, answer in answers.items()},
    }


@torch.inference_mode()
def weigh_loop(name, frames):
    """The loop's memory, in megabytes."""
    _, loop, video = make(name, frames)
    return peak_megabytes(lambda: loop(video)) if loop else None


def ask(question, given):
    """The answer of a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps(question), "--rounds", str(given.rounds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, question))} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def judge(row):
    """What fails in a row, and the ways that are faster than its loop, each with how many times."""
    spent, failed, faster = row["milliseconds"], [], {}
    if "loop" in spent:
        times = {way: spent["loop"] / spent[way] for way in spent if way != "loop"}
        where = f"{row['tower']}, {row['frames']} frames"
        if times["clipact"] < SLOWER:
            failed.append(f"{where}: {times['clipact']:.2f} of the loop's speed; {SLOWER} is the least")
        if row["apart"]["clipact"] > APART:
            failed.append(f"{where}: answers lie {row['apart']['clipact']:.1e} apart; {APART:g} is the most")
        names = {"clipact": "batched frames" if CASES[row["tower"]].by_frame else "clipact"}
        faster = {names.get(way, way): value for way, value in times.items() if value >= FASTER}
    return {"failed": failed, "faster": faster}


HEADINGS = "tower | frames | GFLOPs | loop, ms | clipact, ms | times | bf16, ms | compile, ms"
HEADINGS += " | of peak, fp32 | bf16 | loop, MB | clipact, MB | apart | verdict"


def shown(row):
    """A line of the table."""
    spent, megabytes, share = row["milliseconds"], row["megabytes"], row["share_of_peak"]

    def said(table, way):
        return "" if table.get(way) is None else f"{table[way]:.0f}"

    loop = "loop" in spent
    times = f"{spent['loop'] / spent['clipact']:.2f}" if loop else "no loop"
    verdict = "FAILED" if row["failed"] else ", ".join(f"{way} {value:.1f}x" for way, value in row["faster"].items())
    cells = (row["tower"], row["frames"], f"{row['gflops']:.1f}", said(spent, "loop"), said(spent, "clipact"), times)
    cells += (
        said(spent, "bf16"),
        said(spent, "compile"),
        f"{100 * share['fp32']:.0f} %",
        f"{100 * share['bf16']:.0f} %",
    )
    cells += (said(megabytes, "loop"), said(megabytes, "clipact"), f"{row['apart']['clipact']:.0e}" if loop else "")
    return f"| {' | '.join(map(str, cells))} | {verdict or ('as fast' if loop else '')} |"


def in_sum(rows):
    """The verdict in sentences."""
    compared = [row for row in rows if "loop" in row["milliseconds"]]
    failed = [sentence for row in rows for sentence in row["failed"]]
    good = sum(not row["failed"] for row in compared)
    yield f"{good} of {len(compared)} rows with a loop answer as it does and are never slower."
    for way in ("batched frames", "clipact", "bf16", "compile"):
        if faster := [row for row in compared if way in row["faster"]]:
            most = max(row["faster"][way] for row in faster)
            named = dict.fromkeys(row["tower"] for row in faster)
            yield f"Faster by {way}, up to {most:.1f} times: {'; '.join(named)}."
    yield from failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--towers", nargs="+", default=[""], help="those whose names hold a word; all by default")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        kind, name, frames = json.loads(given.one)
        print(json.dumps(time_one(name, frames, rounds=given.rounds) if kind == "row" else weigh_loop(name, frames)))
        return False
    chosen = {name: case for name, case in CASES.items() if any(word.lower() in name.lower() for word in given.towers)}
    if not chosen:
        parser.error(f"no tower's name holds {' or '.join(given.towers)}: {', '.join(CASES)}")
    rows = []
    if not given.json:
        print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; one clip at a time\n")
        print(f"| {HEADINGS} |\n|{'---|' * len(HEADINGS.split('|'))}", flush=True)
    for name, case in chosen.items():
        for frames in case.frames:
            row = {"tower": name, "frames": frames, **ask(("row", name, frames), given)}
            if "loop" in row["milliseconds"]:
                row["megabytes"]["loop"] = ask(("memory", name, frames), given)
            rows.append(row | judge(row))
            if not given.json:
                print(shown(rows[-1]), flush=True)
    if given.json:
        print(json.dumps({"threads": torch.get_num_threads(), "rows": rows, "in_sum": list(in_sum(rows))}, indent=2))
    else:
        print("\n" + "\n".join(in_sum(rows)))
    return any(row["failed"] for row in rows)


if __name__ == "__main__":
    raise SystemExit(main())
