"""Whether templates chosen for sports22's dev part beat the set `action`: forward selection. Prints Markdown.

    python eval/choose_templates.py --data DIR [--model mini]

Candidates are the sentences below and those of the published sets that read well with a gerund in the hole. Taken is
the one with the best top-1 of its ensemble, then the one that adds most, until none adds anything. What that gains is
told three ways: on dev itself, where it was chosen and looks too good; on dev with five folds, chosen on four and
judged on the fifth; and on the test part, which chose nothing. In that table every set says the phrase alone.

A second table asks whether it is the templates that gain, or what is said of a label: `action` and the chosen ones with
the phrase alone, and with synonyms and descriptions, on all protocols with labels that mini is reported on.
"""

import argparse
from pathlib import Path

import numpy as np

from clipact import metrics
from clipact.cache import Cache
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.data.protocol import load_protocol
from clipact.evaluate import EvalOptions, evaluate_wordings, read_samples
from clipact.evaluate.metric_values import share_of
from clipact.models.zoo import load_model
from clipact.prompts import PromptSet, set_names

_OURS = """
A person is {}.
A man is {}.
A woman is {}.
People are {}.
Someone is {}.
Two people are {}.
A group of people are {}.
A man and a woman are {}.
A boy is {}.
A girl is {}.
A child is {}.
Children are {}.
A young man is {}.
An athlete is {}.
There is a person {}.
The person is {}.
A man {}.
A person {} in a video.
a person {}
people {}
a photo of people {}.
a picture of people {}.
"""
# "a photo of a person using drinking": published, but no sentence for a gerund.
_NO_SENTENCE = ("using", "doing", "during", "performing", "practicing", "laying", "Doing", "a example", "action")
_MOST, _FOLDS = 8, 5
_PROTOCOLS = ("sports22-dev", "sports22", "ut_interaction", "weizmann", "surv_fight")
_ALL = ("phrase", "synonyms", "descriptions")


def candidates():
    """Ours, then the published ones."""
    published = [template.text for name in set_names("templates") for template in PromptSet.load(name).templates]
    published = [text for text in published if not any(word in text for word in _NO_SENTENCE)]
    return list(dict.fromkeys([*_OURS.strip().splitlines(), *published]))


class TemplateScores:
    """A protocol's samples under every template: with unit vectors of each, an ensemble is a sum over a length."""

    def __init__(self, protocol, data, model, templates):
        samples = read_samples(protocol, data)
        self.templates = templates
        sets = [PromptSet.of([text]) for text in templates]
        classifiers = [
            ZeroShotClassifier(
                model, samples.labels, prompts=one, cache=Cache(), spec=protocol.views.apply(model.encoder.spec)
            )
            for one in sets
        ]
        results = list(
            evaluate_wordings(
                classifiers, samples, averaging=protocol.views.averaging, options=EvalOptions(cache=Cache())
            )
        )
        self.truth = results[0].truth
        bias = 0.0 if model.encoder.bias is None else model.encoder.bias.item()
        self.cosines = np.stack([result.scores - bias for result in results])  # times the model's scale
        self.vectors = np.stack([one.text_embeddings for one in classifiers])

    def right(self, chosen, rows=slice(None)):
        """Which samples the ensemble of the chosen templates, by number, answers rightly."""
        length = np.linalg.norm(self.vectors[chosen].sum(0), axis=1)
        return (self.cosines[chosen][:, rows].sum(0) / length).argmax(1) == self.truth[rows]

    def numbers(self, prompts):
        """The numbers of a set's templates."""
        return [self.templates.index(template.text) for template in prompts.templates]

    def choose(self, count, rows=slice(None)):
        """The numbers that forward selection takes among the first `count` templates, in its order."""
        chosen, best = [], 0.0
        while len(chosen) < _MOST:
            left = [number for number in range(count) if number not in chosen]
            figures = [self.right([*chosen, number], rows).mean() for number in left]
            if max(figures) <= best:
                break
            best = max(figures)
            chosen.append(left[int(np.argmax(figures))])
        return chosen


def gain(right, base, groups=None):
    """Points above the base, with the interval of a paired bootstrap."""
    one = metrics.paired_bootstrap(share_of(right), share_of(base), len(right), groups=groups)
    return f"{100 * one.value:+.1f} ({100 * one.low:.1f} – {100 * one.high:.1f}), p {one.p:.3f}"


def ablate(protocol, data, model, chosen):
    """Cells for a protocol: `action` and chosen, each with the phrase alone and with all parts, and the gains."""
    samples = read_samples(protocol, data)
    both = [PromptSet.load("action"), PromptSet.of(chosen)]
    sets = [one.worded(words=parts) for parts in (("phrase",), _ALL) for one in both]
    spec = protocol.views.apply(model.encoder.spec)
    classifiers = [
        ZeroShotClassifier(model, samples.labels, prompts=one, clips=protocol.views.views, spec=spec, cache=Cache())
        for one in sets
    ]
    results = list(
        evaluate_wordings(
            classifiers,
            samples,
            averaging=protocol.views.averaging,
            crops=protocol.views.crops,
            options=EvalOptions(cache=Cache()),
        )
    )
    rights = [metrics.hits(result.scores, result.truth) for result in results]
    pairs = ((1, 0), (2, 0), (3, 1), (3, 2))
    gains = [gain(rights[one], rights[other], results[0].groups) for one, other in pairs]
    return [*(f"{right.mean():.1%}" for right in rights), *gains]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    words = parser.parse_args()
    model = load_model(words.model, device="cpu")
    sets = {name: PromptSet.load(name) for name in set_names("templates")}
    tried = candidates()
    texts = list(dict.fromkeys([*tried, *(one.text for prompts in sets.values() for one in prompts.templates)]))
    dev, test = (TemplateScores(load_protocol(name), words.data, model, texts) for name in ("sports22-dev", "sports22"))
    chosen = dev.choose(len(tried))
    folds = np.random.default_rng(0).permutation(len(dev.truth)) % _FOLDS
    unseen = np.empty(len(folds), bool)
    for fold in range(_FOLDS):
        unseen[folds == fold] = dev.right(dev.choose(len(tried), folds != fold), folds == fold)
    print(f"{len(tried)} candidates; chosen, in this order:\n")
    for count in range(1, len(chosen) + 1):
        part = chosen[:count]
        print(f"- `{texts[part[-1]]}` (dev {dev.right(part).mean():.1%}, test {test.right(part).mean():.1%})")
    print("\n| chosen, points above | top-1 dev | dev, too good | dev, five folds | top-1 test | test |")
    print("|---|---|---|---|---|---|")
    for name, prompts in sets.items():
        on_dev, on_test = dev.right(dev.numbers(prompts)), test.right(test.numbers(prompts))
        cells = (gain(dev.right(chosen), on_dev), gain(unseen, on_dev))
        tested = gain(test.right(chosen), on_test)
        print(f"| {name} | {on_dev.mean():.1%} | {' | '.join(cells)} | {on_test.mean():.1%} | {tested} |")
    rows = (
        "action, phrase", "chosen, phrase", "action, all", "chosen, all", "chosen above action, phrase",
        "all above phrase, action", "all above phrase, chosen", "chosen above action, all",
    )  # fmt: skip
    columns = [
        ablate(load_protocol(name), words.data, model, [texts[number] for number in chosen]) for name in _PROTOCOLS
    ]
    print(f"\n| top-1 | {' | '.join(_PROTOCOLS)} |\n|---|{'---|' * len(_PROTOCOLS)}")
    for number, name in enumerate(rows):
        print(f"| {name} | {' | '.join(column[number] for column in columns)} |")


if __name__ == "__main__":
    main()
