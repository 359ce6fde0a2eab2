"""The towers of tower_speed.py, each beside what one writes with the library alone over the same tensors.

The plain loop is what a user of the library writes for one clip: with open_clip, CLIP, SigLIP, timm or mini's image
tower encode_image (or its like) frame by frame, and then the aggregate of the frames; with a video network of
transformers or torchvision the model called on the clip. It batches neither frames nor clips.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from clipact.clip_spec import ClipSpec
from clipact.config import parse
from clipact.models import zoo
from clipact.models.hub import transformers as from_transformers
from clipact.models.hub.open_clip import OpenClipImage
from clipact.models.hub.timm import TimmImage
from clipact.models.hub.transformers import TransformersImage, config_table
from clipact.models.hub.transformers_video import TransformersVideo
from clipact.models.hub.xclip import XClip
from clipact.models.towers.frame_aggregator import AGGREGATORS, FrameAggregator
from clipact.models.towers.swin3d import Swin3D
from clipact.models.towers.tower import Head, VisualTower
from clipact.models.towers.vivit import ViViT

HEAD = Head.Config(dim=64, blocks=0)
VJEPA_BASE = {"crop_size": 224, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
VJEPA_BASE |= {"pred_num_hidden_layers": 1}

Loop = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A row for each number of frames.

    make      of a number of frames: our tower and the plain loop over the same tensors, None where nobody has one
    by_frame  whether the loop goes frame by frame
    compiled  numbers of frames at which torch.compile is tried, half a minute each
    """

    make: Callable[[int], tuple[VisualTower, Loop | None]]
    frames: tuple[int, ...] = (8,)
    by_frame: bool = False
    compiled: tuple[int, ...] = ()


def by_frame(see, video, aggregate=lambda frames: frames.mean(1)):
    """What `aggregate` makes of each clip's frames (1, t, d), which are seen one at a time."""
    return torch.cat([aggregate(torch.stack([see(frame[None])[0] for frame in clip])[None]) for clip in video])


def mini(frames, *, aggregator="mean", shift=0.0):
    """An aggregator over mini's image tower, away from the mean at which it begins; a shift has no plain loop."""
    image = zoo.load_model("mini", device="cpu").encoder.visual.image
    spec = ClipSpec(frames=frames, size=image.spec.size)
    config = parse(FrameAggregator.Config, {"aggregator": aggregator, "shift": shift})
    ours = FrameAggregator(image, config, spec=spec).eval()
    for parameter in ours.aggregator.parameters():
        parameter.add_(0.02 * torch.randn(parameter.shape))
    return ours, None if shift else partial(by_frame, image, aggregate=ours.aggregator)


def open_clip(frames, *, name):
    """open_clip's encode_image."""
    import open_clip

    theirs, table = open_clip.create_model(name).eval(), open_clip.get_model_config(name)
    image = OpenClipImage(OpenClipImage.Config(model=table), network=theirs.visual)
    return FrameAggregator(image).eval(), partial(by_frame, theirs.encode_image)


def timm(frames, *, name):
    """timm's network without its classifier; the head is ours."""
    ours = FrameAggregator(TimmImage(TimmImage.Config(name=name, head=HEAD))).eval()
    image = ours.image
    return ours, partial(by_frame, lambda picture: image.head(image.network(picture)))


def dual(frames, *, name):
    """transformers' get_image_features, of CLIP or SigLIP."""
    theirs = of_transformers(name)
    image = TransformersImage(TransformersImage.Config(model=config_table(theirs)), network=theirs)
    return FrameAggregator(image).eval(), partial(
        by_frame, lambda picture: theirs.get_image_features(picture).pooler_output
    )


def xclip(frames):
    """transformers' get_video_features of X-CLIP."""
    theirs = of_transformers("XCLIP", vision_config={"num_frames": frames})
    config = XClip.Config(model=from_transformers.without(config_table(theirs), "text_config"))
    ours = XClip(config, spec=ClipSpec(frames=frames), network=theirs).eval()
    return ours, lambda video: theirs.get_video_features(video).pooler_output


def video(frames, *, name, key="num_frames", **table):
    """A video network of transformers, whose loop ends in the same head."""
    theirs = of_transformers(name, **table, **{key: frames})
    config = TransformersVideo.Config(model=config_table(theirs), head=HEAD)
    ours = TransformersVideo(config, spec=ClipSpec(frames=frames), network=theirs).eval()
    asked = {"skip_predictor": True} if name == "VJEPA2" else {}

    def loop(clips):
        tokens = theirs(clips, **asked).last_hidden_state
        return ours.head(tokens[:, 0] if ours.family.class_token else tokens.mean(1))

    return ours, loop


def joint_vivit(frames):
    """Our joint ViViT, and transformers' VivitModel with the same weights."""
    from transformers import VivitConfig, VivitModel

    from tests.equivalence.pairs import vivit_like  # a checkout has it

    theirs = VivitModel(VivitConfig(num_frames=frames), add_pooling_layer=False).eval()
    return vivit_like(theirs), lambda clips: theirs(clips).last_hidden_state[:, 0]


def factorised_vivit(frames, *, attention):
    """Our ViViT of base size, of which no library has a model."""
    sizes = {"width": 768, "layers": 12, "heads": 12, "hidden": 3072}
    return ViViT(ViViT.Config(attention=attention, head=HEAD, **sizes), spec=ClipSpec(frames=frames)).eval(), None


def swin(frames, *, variant):
    """Video Swin, and torchvision's own."""
    from torchvision.models import video as models

    theirs = getattr(models, f"swin3d_{variant[0]}")().eval()
    theirs.head = torch.nn.Identity()
    ours = Swin3D(Swin3D.Config(variant=variant, head=HEAD), spec=ClipSpec(frames=frames)).eval()
    ours.network = theirs
    return ours, lambda clips: ours.head(theirs(clips.transpose(1, 2)))


def of_transformers(name, **table):
    """A model of transformers with random weights."""
    import transformers

    return getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**table)).eval()


CASES = {
    "mini": Case(make=mini, frames=(1, 8, 16), by_frame=True, compiled=(8,)),
    **{
        f"mini, {name}": Case(make=partial(mini, aggregator=name), by_frame=True)
        for name in AGGREGATORS
        if name != "mean"
    },
    "mini, shift": Case(make=partial(mini, shift=0.125)),
    "open_clip ViT-B-32": Case(
        make=partial(open_clip, name="ViT-B-32"), frames=(1, 8, 16), by_frame=True, compiled=(8,)
    ),
    "open_clip RN50": Case(make=partial(open_clip, name="RN50"), by_frame=True),
    "open_clip MobileCLIP-S1": Case(make=partial(open_clip, name="MobileCLIP-S1"), by_frame=True),
    "timm vit_small_patch16_224": Case(make=partial(timm, name="vit_small_patch16_224"), by_frame=True),
    "timm convnext_tiny": Case(make=partial(timm, name="convnext_tiny"), by_frame=True),
    "transformers CLIP B/32": Case(make=partial(dual, name="CLIP"), by_frame=True),
    "transformers SigLIP B/16": Case(make=partial(dual, name="Siglip"), by_frame=True),
    "transformers X-CLIP B/32": Case(make=xclip),
    "transformers VideoMAE B": Case(make=partial(video, name="VideoMAE"), frames=(8, 16)),
    "transformers TimeSformer B": Case(make=partial(video, name="Timesformer")),
    "transformers ViViT B": Case(make=partial(video, name="Vivit")),
    "transformers V-JEPA 2 B": Case(make=partial(video, name="VJEPA2", key="frames_per_clip", **VJEPA_BASE)),
    "vivit joint, VivitModel B": Case(make=joint_vivit, frames=(8, 16), compiled=(8,)),
    **{
        f"vivit {attention}": Case(make=partial(factorised_vivit, attention=attention))
        for attention in ("factorised_encoder", "factorised_self")
    },
    "swin3d tiny": Case(make=partial(swin, variant="tiny"), frames=(8, 16), compiled=(8,)),
    "swin3d small": Case(make=partial(swin, variant="small")),
    "swin3d base": Case(make=partial(swin, variant="base")),
}
