"""The same modules as `clipact classify`, called one after the other, with nothing but torch imported.

`--decode-all` decodes every frame of the video and keeps those it needs; without it the frames come from
clipact.load_clip.
"""

import argparse
import json

import numpy as np
import torch
import torch.nn.functional as F


def frames_by_decoding_all(path, spec):
    import av

    from clipact.video.sampling import segment_centers
    from clipact.video.transforms import fit_frame

    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        wanted = set(segment_centers(stream.frames, spec.frames))
        frames = [f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(stream)) if i in wanted]
    return np.stack([fit_frame(frame, spec) for frame in frames])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("video")
    parser.add_argument("labels")
    parser.add_argument("--decode-all", action="store_true")
    arguments = parser.parse_args()

    from clipact import load_clip
    from clipact.config import asset_path
    from clipact.models.checkpoint import load_checkpoint
    from clipact.models.dual_encoder import normalise_frames
    from clipact.prompts import PromptSet, parse_labels

    encoder = load_checkpoint(asset_path("mini"))
    labels = parse_labels([arguments.labels])
    sentences, groups = PromptSet.load("action").sentences(labels)
    if arguments.decode_all:
        frames = frames_by_decoding_all(arguments.video, encoder.spec)
    else:
        frames = load_clip(arguments.video, spec=encoder.spec).frames
    with torch.inference_mode():
        text = encoder.embed_groups(sentences, groups)
        video = F.normalize(encoder.encode_video(normalise_frames(frames, encoder.spec)[None]), dim=-1)
        scores = encoder.logits(video, text)[0].softmax(0)
    print(json.dumps(dict(zip(labels.labels, scores.tolist(), strict=True))))


main()
