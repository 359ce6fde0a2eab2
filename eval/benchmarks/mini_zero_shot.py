"""How good the embedded model is on data that it never learnt from.

    python eval/benchmarks/mini_zero_shot.py --data DIR [--model mini] [--json]

DIR holds flickr8k/, sports22/ and clips/, each with its table of paths and labels. Retrieval over the 1,000 pictures
and 5,000 captions of Flickr8k's test split; the sport in a photograph; the action in three sets of clips. A picture
that cannot be read ends the run; a clip that cannot be read is named and counts as wrong.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

from clipact import zoo
from clipact.classifier import ZeroShotClassifier
from clipact.data.manifest import read_manifest
from clipact.metrics import recall, top_k
from clipact.prompts import LabelSet, PromptSet
from clipact.video.load import load_clip
from clipact.video.normalise import normalise_frames

CLIPS = ("ut_interaction", "weizmann", "surv_fight")
PROMPTS = ("single", "action")
PICTURES_AT_ONCE = 8


@torch.inference_mode()
def embed_pictures(encoder, paths):
    rows = []
    for start in range(0, len(paths), PICTURES_AT_ONCE):
        frames = [
            load_clip(path, spec=encoder.spec, frames=1).frames[0] for path in paths[start : start + PICTURES_AT_ONCE]
        ]
        rows.append(encoder.encode_video(normalise_frames(np.stack(frames), encoder.spec)[:, None]))
        print(f"\r{start + len(frames)} of {len(paths)} pictures", end="", file=sys.stderr)
    print(file=sys.stderr)
    return torch.cat(rows)


@torch.inference_mode()
def judge_retrieval(encoder, data):
    manifest = read_manifest(data / "flickr8k/captions.csv")
    samples = manifest.of_split("test")
    pictures = embed_pictures(encoder, [manifest.root / sample.path for sample in samples])
    said = [(i, sentence) for i, sample in enumerate(samples) for sentence in sample.captions]
    sentences = encoder.encode_text([sentence for _, sentence in said])
    of_sentence, of_picture = np.array([i for i, _ in said]), np.arange(len(samples))
    scores = (sentences @ pictures.T).numpy()
    directions = {
        "text to picture": recall(scores, of_sentence, of_picture, ks=(1, 5, 10)),
        "picture to text": recall(scores.T, of_picture, of_sentence, ks=(1, 5, 10)),
    }
    for way, found in directions.items():
        for k, share in found.items():
            count = len(said) if way == "text to picture" else len(samples)
            yield {"set": "flickr8k test", "what": f"{way} recall@{k}", "share": share, "samples": count}


@torch.inference_mode()
def judge_pictures(encoder, data):
    manifest = read_manifest(data / "sports22/labels.csv")
    samples = manifest.of_split("all")
    labels = sorted({sample.label for sample in samples})
    truth = torch.tensor([labels.index(sample.label) for sample in samples])
    pictures = embed_pictures(encoder, [manifest.root / sample.path for sample in samples])
    for prompts in PROMPTS:
        sentences, groups = PromptSet.load(prompts).sentences(LabelSet.of(labels))
        scores = pictures @ encoder.embed_groups(sentences, groups).T
        for k in (1, 5):
            yield {
                "set": "sports22",
                "what": f"top-{k} of {len(labels)}, prompts {prompts}",
                "share": top_k(scores, truth, k=k),
                "samples": len(samples),
            }


def judge_clips(model, data, name):
    manifest = read_manifest(data / f"clips/{name}.csv")
    samples = manifest.of_split("all")
    labels = sorted({sample.label for sample in samples})
    classifier = ZeroShotClassifier(model, labels)
    right, unread = 0, []
    for sample, answer in zip(
        samples, classifier.classify_many([manifest.root / sample.path for sample in samples]), strict=True
    ):
        if isinstance(answer, Exception):
            unread.append(str(answer))
        else:
            right += answer.label == sample.label
    for cause in unread:
        print(cause, file=sys.stderr)
    what = f"top-1 of {len(labels)}, {classifier.spec.frames} frames, prompts action"
    yield {"set": name, "what": what, "share": right / len(samples), "samples": len(samples), "unread": len(unread)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    model = zoo.load(arguments.model, device="cpu")
    rows = [*judge_retrieval(model.encoder, arguments.data), *judge_pictures(model.encoder, arguments.data)]
    for name in CLIPS:
        rows += judge_clips(model, arguments.data, name)
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(f"{row['set']:<16}{row['what']:<44}{row['share']:7.1%}{row['samples']:7,}")


if __name__ == "__main__":
    main()
