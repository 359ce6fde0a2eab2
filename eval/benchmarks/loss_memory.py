"""Memory and time of a contrastive loss and its gradient, dense and in tiles.

    python eval/benchmarks/loss_memory.py [--rows 4096,16384,32768] [--width 512] [--tile 2048] [--threads N] [--json]

A new process for each figure: unit vectors and three id vectors (one in five rows repeats a clip, one in ten a
sentence, 101 labels) are made, the peak of resident memory is set back, then loss and gradient are taken once. Quoted:
that peak less what was resident before, seconds, and seconds of processor time, which a busy machine inflates less.
Dense is left out above --dense-rows. Linux only.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path


def resident(field):
    """VmRSS or VmHWM of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measure(loss, rows, width, tile, threads):
    """One figure, in this process."""
    import torch
    import torch.nn.functional as F

    from clipact.losses import LOSSES

    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    visual, text = (F.normalize(torch.randn(rows, width), dim=-1).requires_grad_() for _ in range(2))
    scale, bias = torch.tensor(20.0, requires_grad=True), torch.tensor(-5.0, requires_grad=True)
    ids = [torch.randint(0, groups, (rows,)) for groups in (rows * 4, rows * 9, 101)]

    few = torch.randn(64, width, requires_grad=True)  # libraries take their buffers at the first call
    LOSSES[loss](few, few, scale=scale, bias=bias, tile=tile).backward()
    Path("/proc/self/clear_refs").write_text("5")
    before, start, cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
    value = LOSSES[loss](visual, text, scale=scale, bias=bias, ids=ids, tile=tile)
    value.backward()
    return {
        "loss": loss,
        "rows": rows,
        "width": width,
        "tile": tile,
        "gib": round((resident("VmHWM") - before) / 2**30, 3),
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "value": value.item(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="4096,16384,32768")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--tile", type=int, default=2048)
    parser.add_argument("--dense-rows", type=int, default=16384, help="the most rows that the dense loss is given")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(**json.loads(arguments.one))))
        return
    figures = []
    for rows in map(int, arguments.rows.split(",")):
        for loss in ("info_nce", "sigmoid"):
            for tile in (None, arguments.tile):
                if tile is None and rows > arguments.dense_rows:
                    continue
                one = {"loss": loss, "rows": rows, "width": arguments.width, "tile": tile, "threads": arguments.threads}
                command = [sys.executable, __file__, "--one", json.dumps(one)]
                figures.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
                if not arguments.json:
                    print_row(figures[-1])
    if arguments.json:
        print(json.dumps(figures))


def print_row(figure):
    how = f"tiles of {figure['tile']}" if figure["tile"] else "dense"
    print(
        f"{figure['loss']:<9} {figure['rows']:6d} x {figure['width']}  {how:<14} "
        f"{figure['gib']:6.2f} GiB {figure['seconds']:7.1f} s {figure['cpu_seconds']:7.1f} s cpu   "
        f"loss {figure['value']:.6f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
