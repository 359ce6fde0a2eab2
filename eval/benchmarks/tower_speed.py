"""What a clip costs each tower at several lengths, beside the plain loop over the same weights, in one run.

    python eval/benchmarks/tower_speed.py [--only vivit] [--rounds 5] [--compile] [--json]

The plain loop is what one writes with the library alone: encode_image frame by frame and the mean with open_clip or
CLIP, the model called on the clip with transformers and torchvision. Both hold the same tensors, and must answer alike.
Rounds alternate, the best of each counts. GFLOPs are torch's count of ours; the share is of the rate that a product of
two 2048 x 2048 matrices reaches in the same process. Peak memory is of a process of its own for each of the two. bf16
is autocast; --compile adds torch.compile, half a minute more a line. Needs a checkout; ten minutes on two cores.
"""

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import time
from functools import partial

import torch
import torch.nn.functional as F

from clipact.clip_spec import ClipSpec
from clipact.cost import measure
from clipact.dual_encoder import DualEncoder
from clipact.nn.head import Head
from clipact.towers.frames import FramesTower
from clipact.towers.from_open_clip import OpenClipImage
from clipact.towers.from_transformers import TransformersImage, quiet, table_of
from clipact.towers.swin3d import Swin3D
from clipact.towers.transformers_video import TransformersVideo

HEAD = Head.Config(dim=64, blocks=0)


def picture_loop(see, video):
    """The mean over the frames of each clip, one frame at a time."""
    return torch.stack([torch.stack([see(frame[None])[0] for frame in clip]).mean(0) for clip in video])


def open_clip_case(name, frames):
    """Ours, and encode_image frame by frame."""
    import open_clip

    theirs, table = open_clip.create_model(name).eval(), open_clip.get_model_config(name)
    image = OpenClipImage(OpenClipImage.Config(model=table), network=theirs.visual)
    return FramesTower(image).eval(), partial(picture_loop, theirs.encode_image)


def clip_case(name, frames):
    """transformers' CLIP, picture by picture."""
    from transformers import CLIPConfig, CLIPModel

    theirs = CLIPModel(CLIPConfig()).eval()
    image = TransformersImage(TransformersImage.Config(model=table_of(theirs)), network=theirs)
    return FramesTower(image).eval(), partial(
        picture_loop, lambda picture: theirs.get_image_features(picture).pooler_output
    )


def video_case(name, frames):
    """A video network of transformers, whose loop ends in the same head."""
    import transformers

    theirs = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(num_frames=frames)).eval()
    config = TransformersVideo.Config(model=table_of(theirs), head=HEAD)
    ours = TransformersVideo(config, spec=ClipSpec(frames=frames), network=theirs).eval()

    def loop(video):
        tokens = theirs(video).last_hidden_state
        return ours.head(tokens[:, 0] if ours.family.class_token else tokens.mean(1))

    return ours, loop


def vivit_case(name, frames):
    """Our joint ViViT, and transformers' VivitModel with the same weights."""
    from transformers import VivitConfig, VivitModel

    from tests.equivalence.pairs import vivit_like  # a checkout has it

    theirs = VivitModel(VivitConfig(num_frames=frames), add_pooling_layer=False).eval()
    return vivit_like(theirs), lambda video: theirs(video).last_hidden_state[:, 0]


def swin_case(name, frames):
    """Video Swin, and torchvision's own."""
    from torchvision.models import video as models

    theirs = getattr(models, name)().eval()
    variant = {"t": "tiny", "s": "small", "b": "base"}[name[-1]]
    ours = Swin3D(Swin3D.Config(variant=variant, head=HEAD), spec=ClipSpec(frames=frames)).eval()
    theirs.head = torch.nn.Identity()
    ours.network = theirs
    return ours, lambda video: ours.head(theirs(video.transpose(1, 2)))


CASES = {
    "open_clip ViT-B-32": (partial(open_clip_case, "ViT-B-32"), (1, 8, 32)),
    "open_clip RN50": (partial(open_clip_case, "RN50"), (8,)),
    "open_clip MobileCLIP-S1": (partial(open_clip_case, "MobileCLIP-S1"), (8,)),
    "transformers CLIP B/32": (partial(clip_case, ""), (8,)),
    "transformers VideoMAE-B": (partial(video_case, "VideoMAE"), (8, 16)),
    "transformers TimeSformer-B": (partial(video_case, "Timesformer"), (8,)),
    "vivit, VivitModel B": (partial(vivit_case, ""), (8, 16, 32)),
    "swin3d_t": (partial(swin_case, "swin3d_t"), (8, 16)),
}


def product_gflops(side=2048, repeats=5):
    """10^9 operations a second of a matrix product in fp32: the best of some."""
    a = torch.randn(side, side)
    best = min(seconds(lambda: a @ a) for _ in range(repeats))
    return 2 * side**3 / best / 1e9


def seconds(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@torch.inference_mode()
def time_one(name, frames, *, rounds, compiled):
    """Milliseconds a clip of each way, what is counted, how far the two answers lie apart."""
    ours, loop = make(name, frames)
    video = torch.randn(1, frames, len(ours.spec.mean), *ours.spec.size, generator=torch.Generator().manual_seed(1))
    ways = {"loop": lambda: loop(video), "clipact": lambda: ours(video)}

    def halved():
        with torch.autocast("cpu", torch.bfloat16):
            return ours(video)

    ways["bf16"] = halved
    if compiled:
        faster = torch.compile(ours)
        ways["compiled"] = lambda: faster(video)
    answers = {way: work().float() for way, work in ways.items()}  # warms up, too
    best = {}
    for turn in range(rounds):
        for way in list(ways) if turn % 2 else reversed(ways):
            best[way] = min(best.get(way, float("inf")), seconds(ways[way]))
    from tests.tiny import TinyText

    gflops = measure(DualEncoder(ours, TinyText(ours.dim)).eval(), frames=frames, repeats=1).gflops
    return {
        "milliseconds": {way: 1e3 * value for way, value in best.items()},
        "gflops": gflops,
        "product_gflops": product_gflops(),
        "apart": {
            way: (F.normalize(answer, dim=-1) - F.normalize(answers["loop"], dim=-1)).abs().max().item()
            for way, answer in answers.items()
        },
    }


@torch.inference_mode()
def weigh_one(name, frames, way):
    """Peak megabytes of this process after one clip."""
    ours, loop = make(name, frames)
    video = torch.randn(1, frames, len(ours.spec.mean), *ours.spec.size)
    (loop if way == "loop" else ours)(video)
    return {"megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def make(name, frames):
    torch.manual_seed(0)
    with quiet(), contextlib.redirect_stdout(sys.stderr):
        return CASES[name][0](frames)


def ask(question, given):
    """The answer of a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps(question), "--rounds", str(given.rounds)]
    done = subprocess.run([*command, *(["--compile"] if given.compile else [])], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="towers whose names hold these words; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, frames, way = json.loads(given.one)
        if way == "time":
            print(json.dumps(time_one(name, frames, rounds=given.rounds, compiled=given.compile)))
        else:
            print(json.dumps(weigh_one(name, frames, way)))
        return
    rows = []
    if not given.json:
        print(
            f"{torch.get_num_threads()} threads, torch {torch.__version__}; milliseconds a clip, alone in its batch\n"
        )
        print(
            "| tower | frames | GFLOPs | loop | clipact | times | bf16 | compiled | of peak | MB, loop | MB | apart |"
        )
        print(f"|{'---|' * 12}", flush=True)
    for name, (_, lengths) in CASES.items():
        for frames in lengths if given.only.lower() in name.lower() else ():
            row = {"tower": name, "frames": frames, **ask((name, frames, "time"), given)}
            row["megabytes"] = {way: ask((name, frames, way), given)["megabytes"] for way in ("loop", "clipact")}
            spent = row["milliseconds"]
            row["share_of_peak"] = row["gflops"] / spent["clipact"] * 1e3 / row["product_gflops"]
            rows.append(row)
            if not given.json:
                print(
                    f"| {name} | {frames} | {row['gflops']:.1f} | {spent['loop']:.0f} | {spent['clipact']:.0f} "
                    f"| {spent['loop'] / spent['clipact']:.2f} | {spent['bf16']:.0f} "
                    f"| {format(spent['compiled'], '.0f') if 'compiled' in spent else ''} "
                    f"| {100 * row['share_of_peak']:.0f} % | {row['megabytes']['loop']:.0f} "
                    f"| {row['megabytes']['clipact']:.0f} | {row['apart']['clipact']:.1e} |",
                    flush=True,
                )
    if given.json:
        print(json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
