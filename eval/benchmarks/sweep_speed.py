"""Seconds of a prompt sweep beside one plain evaluation of the same clips, both from nothing.

    python eval/benchmarks/sweep_speed.py --data DIR [--model mini] [--rounds 2] [--json]

DIR holds clips/*.csv: the first 200 real clips of them are taken, at one number of frames.
Labels are the clips' own and more of a shipped set, 22 together. The sweep tries at least 100 wordings, which make at
least 100 distinct sentences a label; its text cache is cold, and so is every other: each round has a cache of its own.
Rounds alternate; the best of each counts.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from clipact.cache import Cache
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.data.manifest import read_manifest
from clipact.data.protocol import Protocol, ProtocolData, ProtocolPart, ProtocolWords
from clipact.evaluate import EvalOptions, EvalSample, EvalSamples, evaluate
from clipact.models.zoo import load_model
from clipact.prompts import LabelDetails, LabelSet
from clipact.studies import Grid, sweep, variants

_CLIPS, _LABELS = 200, 22
_GRID = Grid(words=("phrase", "descriptions"))
_TABLES = ("ut_interaction", "surv_fight", "weizmann")


def real_clips(folder):
    """200 clips with their labels, and 22 labels with their words; the protocol says the model's own frames."""
    items = []
    for table in _TABLES:
        for sample in read_manifest(folder / f"{table}.csv", folder).samples:
            items.append(EvalSample(name=sample.path, path=folder / sample.path, label=sample.label))
    items = items[:_CLIPS]
    own = list(dict.fromkeys(item.label for item in items))
    more = LabelSet.load("kinetics400").labels
    labels = LabelSet.of([*own, *(label for label in more if "_" not in label)][:_LABELS])
    camel = tuple(_camel(label) for label in labels.labels)
    about = {
        name: LabelDetails(descriptions=(f"Here somebody is {said}.",)) for name, said in zip(camel, own, strict=False)
    }
    about |= {name: LabelDetails(descriptions=(f"This is how {name} looks.",)) for name in camel[len(own) :]}
    named = replace(labels, labels=camel, about=about, name="twenty-two")
    names = dict(zip(labels.labels, named.labels, strict=True))
    return EvalSamples(items=tuple(replace(item, label=names[item.label]) for item in items), labels=named)


def _camel(label):
    """Labels as data sets write them, so that splitting and phrasing them makes other sentences."""
    return "".join(word.capitalize() for word in label.split())


def plain(model, samples, cache):
    """One evaluation as `clipact eval` does it."""
    classifier = ZeroShotClassifier(model, samples.labels, cache=cache)
    return evaluate(classifier, samples, options=EvalOptions(cache=cache))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    samples = real_clips(words.data / "clips")
    protocol = Protocol(
        name="speed", title="real clips", metric="top_1", source="", words=ProtocolWords(),
        data=ProtocolData(set="", parts=(ProtocolPart(manifest="none"),)),
    )  # fmt: skip
    tried = variants(_GRID, samples.labels, baseline="action")
    said = {(prompt.label, prompt.text) for one in tried for prompt in one.prompts.fill(samples.labels)}
    each = [sum(label == number for label, _ in said) for number in range(len(samples.labels))]
    assert (len(samples), len(samples.labels)) == (_CLIPS, _LABELS)
    assert len(tried) >= 100 <= min(each), (len(tried), min(each))
    model = load_model(words.model, device="cpu", defer_text=True)
    model.encoder.encode_text(["a sentence"])  # weights are in memory before the clock starts
    best = {}
    for _ in range(words.rounds):
        for name in ("plain", "sweep"):
            with tempfile.TemporaryDirectory() as folder:
                cache = Cache(folder)
                begun = time.perf_counter()
                if name == "plain":
                    plain(model, samples, cache)
                else:
                    sweep(protocol, samples, model, _GRID, options=EvalOptions(cache=cache))
                seconds = time.perf_counter() - begun
            best[name] = min(best.get(name, seconds), seconds)
    table = {
        "clips": len(samples),
        "labels": len(samples.labels),
        "wordings": len(tried),
        "distinct sentences a label": min(each),
        "seconds": best,
        "times": best["sweep"] / best["plain"],
    }
    if words.json:
        print(json.dumps(table, indent=2))
        return
    print(f"{table['wordings']} wordings, {min(each)} sentences a label or more, {len(samples)} clips")
    for name, seconds in best.items():
        print(f"{name:<8}{seconds:8.1f} s")
    print(f"sweep / plain {table['times']:.2f}")


if __name__ == "__main__":
    main()
