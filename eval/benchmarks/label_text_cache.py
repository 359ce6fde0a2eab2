"""What the embeddings of labels cost: cold, from the cache, with one label more, and after a kill at 99 %.

    python eval/benchmarks/label_text_cache.py [--labels kinetics400] [--prompts action] [--model mini] [--repeats 3]

Each line is a process of its own; seconds are those of `embed_labels`, without imports and the loading of the model.
The kill is a SIGKILL of its own, when 99 % of the batches of sentences are through. "first" means on a cold cache: it
takes one repeat; of the others the best counts.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def embed(given):
    """Embed the labels once, and print seconds and how many sentences were encoded."""
    from clipact.cache import Cache
    from clipact.classify.text_classifier import embed_labels
    from clipact.models.zoo import load_model
    from clipact.prompts import PromptSet, parse_labels

    loaded = load_model(given.model, device="cpu", defer_text=True)
    more = ["juggle five torches"] if given.one_more else []
    labels, prompts = parse_labels([given.labels, *more]), PromptSet.load(given.prompts)
    kind, encoded = type(loaded), []
    encode = kind.encode_text

    def counting(model, sentences, **more):
        encoded.append(len(sentences))
        return encode(model, sentences, **more)

    kind.encode_text = counting

    def progress(items, total, description):
        for number, item in enumerate(items):
            if given.kill_share is not None and number >= int(given.kill_share * total):
                os.kill(os.getpid(), signal.SIGKILL)
            yield item

    begun = time.perf_counter()
    embed_labels(loaded, labels, prompts, cache=Cache(given.cache), progress=progress)
    seconds = round(time.perf_counter() - begun, 3)
    print(json.dumps({"seconds": seconds, "encoded": sum(encoded), "sentences": len(set(_said(labels, prompts)))}))


def _said(labels, prompts):
    return [prompt.text for prompt in prompts.fill(labels)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", default="kinetics400")
    parser.add_argument("--prompts", default="action")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one-more", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--kill-share", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cache:
        embed(given)
        return
    words = [sys.executable, __file__, "--labels", given.labels, "--prompts", given.prompts, "--model", given.model]

    def run(cache, *more):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([*words, "--cache", cache, *more], env=environment, capture_output=True, text=True)
        if "--kill-share" in more:
            assert done.returncode == -signal.SIGKILL, done.stderr
            return None
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def best(cache, *more):
        return min((run(cache, *more) for _ in range(given.repeats)), key=lambda one: one["seconds"])

    with tempfile.TemporaryDirectory() as place:
        found = {"cold, first": run(f"{place}/one"), "warm": best(f"{place}/one")}
        found["one label more, first"] = run(f"{place}/one", "--one-more")
        found["one label more, warm"] = best(f"{place}/one", "--one-more")
        run(f"{place}/two", "--kill-share", "0.99")
        found["after a kill at 99 %, first"] = run(f"{place}/two")
        found["after it, warm"] = best(f"{place}/two")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
