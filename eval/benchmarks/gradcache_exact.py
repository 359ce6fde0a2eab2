"""Who computes the gradient of a contrastive loss over a batch that is encoded in chunks?

    python eval/benchmarks/gradcache_exact.py [--gradcache DIR] [--open-clip DIR] [--json]

Each step is compared with plain autograd over the same chunks: all graphs kept, the same random numbers (for open_clip,
which draws new ones in its second pass: those of that pass). Quoted: the norm of the difference over the norm of the
plain gradient, both towers' parameters and log_scale apart, in 64 bits. Then ours over retention and precision with
the bound that `--verify-grad` sets, and against the whole batch at once where nothing is random. Last, ours in every
combination of cases: the worst one by precision and kept graphs.
"""

import argparse
import json
from itertools import product

import torch
import torch.nn.functional as F
from gradcache_peers import Problem, add_arguments, load_peers
from torch import nn

from clipact.train.chunks import Encoder
from clipact.train.gradcache import cached_step
from clipact.train.verify_gradient import plain_step, verify_gradient

WORDS = "a man runs;a dog jumps;she waves;he sits down;a child eats;two people hug;she reads;he falls".split(";")


class Transformer(nn.Module):
    """Two layers over eight tokens; rows of numbers, or sentences by their first bytes."""

    def __init__(self, *, dropout, batch_norm):
        super().__init__()
        self.first = nn.Linear(8, 32)
        layers = [nn.TransformerEncoderLayer(32, 4, 64, dropout, batch_first=True, norm_first=True) for _ in range(2)]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.BatchNorm1d(32) if batch_norm else nn.LayerNorm(32)
        self.last = nn.Linear(32, 16)

    def forward(self, rows):
        """One unit vector a row."""
        if isinstance(rows, list):
            rows = torch.tensor([list(row.encode().ljust(64)[:64]) for row in rows]).to(self.last.weight) / 64 - 1
        x = self.first(rows.view(len(rows), 8, 8))
        for layer in self.layers:
            x = layer(x)
        return F.normalize(self.last(self.norm(x.mean(1))), dim=-1)


def make_problem(
    *, rows=24, dropout=0.3, tied=False, loss="info_nce", groups=0, text=False, batch_norm=False, frozen=False, dtype
):
    torch.manual_seed(0)
    towers = [Transformer(dropout=dropout, batch_norm=batch_norm).to(dtype) for _ in range(1 if tied else 2)]
    towers[-1].requires_grad_(not frozen)
    sentences = [WORDS[i] for i in torch.randint(0, len(WORDS), (rows,))]
    encoders = [Encoder(name, module, module) for name, module in zip(("video", "text"), towers * 2, strict=False)]
    return Problem(
        encoders=encoders,
        inputs=[torch.randn(rows, 64, dtype=dtype), sentences if text else torch.randn(rows, 64, dtype=dtype)],
        log_scale=nn.Parameter(torch.tensor(2.5, dtype=dtype)),
        loss=loss,
        bias=nn.Parameter(torch.tensor(-3.0, dtype=dtype)) if loss == "sigmoid" else None,
        ids=[torch.randint(0, groups, (rows,)) for _ in range(3)] if groups else (),
    )


CASES = {
    "no dropout": {"dropout": 0.0},
    "dropout": {},
    "dropout, ragged chunks": {"rows": 22},
    "dropout, tied towers": {"tied": True},
    "dropout, distinct sentences once": {"text": True},
    "dropout, multi-positives": {"groups": 15},
    "dropout, sigmoid loss": {"loss": "sigmoid"},
    "dropout, sigmoid, multi-positives": {"loss": "sigmoid", "groups": 15},
    "dropout, text tower frozen": {"frozen": True},
    "batch norm, training": {"batch_norm": True},
}
CHUNK, SEED = 6, 7  # four chunks of 24 rows, the last one short of 22
KEPT = {0: "none", 2: "half", 4: "all"}


def gradients(problem, step):
    """Flat gradients: both towers' as one vector, log_scale's."""
    problem.clear()
    step()
    return torch.cat([p.grad.flatten() for p in problem.towers() if p.requires_grad]), problem.log_scale.grad.clone()


def difference(seen, true):
    return float((seen - true).norm() / true.norm())


def plain_in_order(problem, order):
    """Plain autograd with random numbers drawn in the order in which a peer draws them, all graphs kept."""
    chunks = problem.chunks(CHUNK)
    torch.manual_seed(SEED)
    if order == "GradCache":  # one tower's chunks, then the other's
        sides = [torch.cat([e.encode(c[i]) for c in chunks]) for i, e in enumerate(problem.encoders)]
    else:  # open_clip: both towers chunk by chunk; a pass without graphs, then the one that counts
        with torch.no_grad():
            for chunk in chunks:
                [e.encode(rows) for e, rows in zip(problem.encoders, chunk, strict=True)]
        pairs = [[e.encode(rows) for e, rows in zip(problem.encoders, chunk, strict=True)] for chunk in chunks]
        sides = [torch.cat(side) for side in zip(*pairs, strict=True)]
    problem.loss_fn(*sides).backward()


def compare_peer(name, step, options):
    """Differences of a peer and how often batch norm saw each chunk, or why there are none."""
    if options.get("text"):
        return "not offered"  # each row is encoded, whatever it repeats
    problem = make_problem(dtype=torch.float64, **options)
    true = gradients(problem, lambda: plain_in_order(problem, name))
    problem = make_problem(dtype=torch.float64, **options)
    torch.manual_seed(SEED)
    try:
        seen = gradients(problem, lambda: step(problem, CHUNK))
    except RuntimeError:
        return "fails"
    return [difference(*pair) for pair in zip(seen, true, strict=True)] + [updates(problem)]


def compare_ours(options, *, whole=False, retain=0):
    problem = make_problem(dtype=torch.float64, **options)
    common = {"encoders": problem.encoders, "inputs": problem.inputs, "loss_fn": problem.loss_fn, "seed": SEED}
    rows = len(problem.inputs[0]) if whole else CHUNK
    true = gradients(problem, lambda: plain_step(chunk_size=rows, **common))
    problem = make_problem(dtype=torch.float64, **options)
    common.update(encoders=problem.encoders, inputs=problem.inputs, loss_fn=problem.loss_fn)
    seen = gradients(problem, lambda: cached_step(chunk_size=CHUNK, retain=retain, **common))
    return [difference(*pair) for pair in zip(seen, true, strict=True)] + [updates(problem)]


def updates(problem):
    """How often batch norm's running statistics took a chunk in."""
    norm = problem.encoders[0].module.norm
    return int(norm.num_batches_tracked) / len(problem.chunks(CHUNK)) if isinstance(norm, nn.BatchNorm1d) else None


def combinations():
    """Every combination of cases, in words and as options."""
    for dropout, rows, tied, text, groups, loss in product(
        (0.3, 0.0), (22, 24), (False, True), (False, True), (15, 0), ("info_nce", "sigmoid")
    ):
        options = {"dropout": dropout, "rows": rows, "tied": tied, "text": text, "groups": groups, "loss": loss}
        yield ", ".join(f"{name} {value}" for name, value in options.items()), options


def verified(options, *, retain, autocast=None, dtype=torch.float32):
    problem = make_problem(dtype=dtype, **options)
    check = verify_gradient(
        problem.encoders,
        problem.inputs,
        loss_fn=problem.loss_fn,
        loss_parameters={"log_scale": problem.log_scale},
        chunk_size=CHUNK,
        seed=SEED,
        retain=retain,
        autocast=autocast,
    )
    worst = max(check.differences, key=lambda name: check.differences[name] / check.bounds[name])
    return check.differences[worst], check.bounds[worst]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    peers = load_peers(arguments)
    figures = {"peers": {}, "whole batch": {}, "verified": {}, "worst": {}}
    for case, options in CASES.items():
        found = {name: compare_peer(name, step, options) for name, step in peers.items()}
        figures["peers"][case] = found | {"clipact": compare_ours(options)}
    for case, options in CASES.items():
        if not options.get("batch_norm"):  # which normalises by the chunk
            figures["whole batch"][case] = compare_ours(options | {"dropout": 0.0}, whole=True)
    precisions = {"64 bits": {"dtype": torch.float64}, "32 bits": {}, "bf16 autocast": {"autocast": torch.bfloat16}}
    for precision, how in precisions.items():
        for case, options in CASES.items():
            found = {name: verified(options, retain=kept, **how) for kept, name in KEPT.items()}
            figures["verified"][f"{precision}: {case}"] = found
        for kept, name in KEPT.items():
            worst = max(
                ((*verified(options, retain=kept, **how), said) for said, options in combinations()),
                key=lambda seen: seen[0] / seen[1],
            )
            figures["worst"][f"{precision}: {name} kept"] = worst
    if arguments.json:
        print(json.dumps(figures))
        return
    print_tables(figures)


def print_tables(figures):
    names = list(next(iter(figures["peers"].values())))
    print("Relative difference from plain autograd over the same chunks: towers | log_scale")
    print(f"{'':<36}" + "".join(f"{name:^24}" for name in names))
    for case, found in figures["peers"].items():
        cells = [seen if isinstance(seen, str) else f"{seen[0]:.0e} | {seen[1]:.0e}" for seen in found.values()]
        print(f"{case:<36}" + "".join(f"{cell:^24}" for cell in cells))
    last = figures["peers"]["batch norm, training"]
    print(f"{'  updates of its statistics a chunk':<36}" + "".join(f"{seen[2]:^24g}" for seen in last.values()))
    print("\nOurs against the whole batch at once, dropout off: towers | log_scale")
    for case, seen in figures["whole batch"].items():
        print(f"{case.replace('dropout, ', ''):<48} {seen[0]:.0e} | {seen[1]:.0e}")
    print("\nOurs, verified: worst difference (its bound), by chunks whose graphs are kept")
    for case, found in figures["verified"].items():
        cells = [f"{kept}: {seen:.0e} ({bound:.0e})" for kept, (seen, bound) in found.items()]
        print(f"{case:<48} " + "   ".join(cells))
    print(f"\nOurs, verified in {len(list(combinations()))} combinations: the worst of them")
    for case, (seen, bound, said) in figures["worst"].items():
        print(f"{case:<28} {seen:.0e} ({bound:.0e})   {said}")


if __name__ == "__main__":
    main()
