"""Which words suit a model: chosen on sports22's dev part, reported on other data. Prints Markdown.

    python eval/prompt_study.py --data DIR [--model mini] [--out sweeps]

The bare label is the baseline. Every shipped prompt set is used plainly, and one of them (--set) with every pooling;
chosen, in bold, is the best wording of the whole grid on sports22-dev. A last table holds the bare label and the set's
templates with the phrase alone against the set as it is shipped, with its own wording. Tables and pages of the sweeps
go to --out.
Flickr8k has captions, not labels: there the first caption of each picture is put into the templates, and the vectors
of its sentences are averaged.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from clipact import metrics
from clipact.cache import Cache
from clipact.data.protocol import load_protocol
from clipact.evaluate import EvalOptions, evaluate_retrieval, read_samples
from clipact.evaluate.metric_values import share_of
from clipact.models.zoo import load_model
from clipact.prompts import PromptSet, set_names
from clipact.studies import Grid, sweep
from clipact.studies.prompt_sweep.sweep_files import write_sweep

_DEV, _REPORTED = "sports22-dev", ("sports22", "ut_interaction", "weizmann", "surv_fight")
_POOLED = (
    "mean probability",
    "weighted templates",
    "+ synonyms",
    "+ synonyms, likeliest word",
    "+ descriptions",
    "+ descriptions, likeliest word",
    "+ synonyms, + descriptions",
    "+ synonyms, + descriptions, likeliest word",
)


def percent(one):
    return f"{100 * one.value:.1f} ({100 * one.low:.1f} – {100 * one.high:.1f})"


def run_sweep(name, model, words, *, grid=None, baseline="bare"):
    """The sweep of a protocol."""
    protocol = load_protocol(name)
    found = sweep(
        protocol, read_samples(protocol, words.data), model, grid, baseline=baseline, options=EvalOptions(cache=Cache())
    )
    write_sweep(found, words.out / (name if baseline == "bare" else f"{name}-above-{baseline}"))
    return found


def retrieval(model, words):
    """Text to picture, recall@1: figure and difference to bare captions, by prompt set."""
    protocol = load_protocol("flickr8k")
    result = evaluate_retrieval(
        model,
        read_samples(protocol, words.data),
        spec=protocol.views.apply(model.encoder.spec),
        options=EvalOptions(cache=Cache()),
    )
    firsts = [int(np.flatnonzero(result.text_of == row)[0]) for row in range(len(result.samples))]
    captions = [result.texts[i].strip().rstrip(".").strip() for i in firsts]
    truth, right = np.arange(len(captions)), {}
    for name in ["bare", *(name for name in set_names("templates") if name != "bare")]:
        templates = PromptSet.load(name).templates
        sentences = [template.fill(caption) for caption in captions for template in templates]
        groups = [number for number in range(len(captions)) for _ in templates]
        with torch.inference_mode():
            text = model.encoder.embed_groups(sentences, groups).float().cpu().numpy()
        right[name] = metrics.hits(text @ result.visual.T, truth)
    count = len(captions)
    return {
        name: (
            metrics.bootstrap(share_of(hit), count),
            metrics.paired_bootstrap(share_of(hit), share_of(right["bare"]), count),
        )
        for name, hit in right.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--set", default="action")
    parser.add_argument("--out", type=Path, default=Path("sweeps"))
    words = parser.parse_args()
    model = load_model(words.model)
    dev = run_sweep(_DEV, model, words)
    chosen = dev.best_first[0].variant.name
    plain = ["bare", *(name for name in set_names("templates") if name != "bare")]
    shown = [*plain, *(f"{words.set}, {pooling}" for pooling in _POOLED)]
    shown += [chosen] if chosen not in shown else []
    swept = {_DEV: dev} | {name: run_sweep(name, model, words) for name in _REPORTED}
    rows = {name: {row.variant.name: row for row in found.rows} for name, found in swept.items()}
    print(f"| wording | {' | '.join(swept)} |\n|---|{'---|' * len(swept)}")
    for name in shown:
        cells = [percent(rows[protocol][name].top_1) if name in rows[protocol] else "as above" for protocol in swept]
        print(f"| {'**' if name == chosen else ''}{name}{'**' if name == chosen else ''} | {' | '.join(cells)} |")
    print("\n| points above bare | " + " | ".join(swept) + f" |\n|---|{'---|' * len(swept)}")
    for name in shown[1:]:
        cells = []
        for protocol in swept:
            row = rows[protocol].get(name)
            cells.append("as above" if row is None else f"{percent(row.difference)}, p {row.difference.p:.3f}")
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\n| points above {words.set} as shipped | {' | '.join(swept)} |\n|---|{'---|' * len(swept)}")
    few = Grid(templates=("bare", words.set), label_format=("phrases",), include=("phrase",), pooling=("embeddings",))
    above = [run_sweep(name, model, words, grid=few, baseline=words.set) for name in swept]
    for number, name in enumerate(row.variant.name for row in above[0].rows):
        found = [one.rows[number].difference for one in above]
        if number:
            print(f"| {name} | {' | '.join(f'{percent(one)}, p {one.p:.3f}' for one in found)} |")
    print("\n| Flickr8k, text to picture, first captions | recall@1 | points above bare |\n|---|---|---|")
    for name, (figure, difference) in retrieval(model, words).items():
        print(f"| {name} | {percent(figure)} | {percent(difference)}, p {difference.p:.3f} |")


if __name__ == "__main__":
    main()
