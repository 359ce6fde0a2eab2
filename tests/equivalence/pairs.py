"""Our towers beside the modules that they stand for, with the same random weights: what tests and a benchmark compare.

A pair is made in a folder of its own, small for the tests or in the size that is published; weights go from the
reference to ours through a file, as a user's do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor, nn

from clipact.clip_spec import ClipSpec
from clipact.losses import masked_mse
from clipact.models.dual_encoder import DualEncoder, unit
from clipact.models.hub import open_clip as from_open_clip
from clipact.models.hub import open_clip_source, transformers_source, xclip
from clipact.models.hub import transformers as from_transformers
from clipact.models.hub.transformers import quiet_transformers
from clipact.models.hub.transformers_video import load_tower
from clipact.models.towers.frame_aggregator import FrameAggregator
from clipact.models.towers.swin3d import Swin3D
from clipact.models.towers.tower import Head
from clipact.models.towers.vivit import ViViT
from clipact.train.initialization import _fill
from clipact.train.masked_autoencoder import DecoderConfig, MaskConfig, MaskedAutoencoder, draw_mask
from tests.tiny_open_clip import open_clip_folder
from tests.tiny_transformers import PREFIX, transformers_folder

CLIPS = 2
Answers = dict[str, Tensor]


@dataclass(frozen=True)
class Pair:
    """The same question put to both: named answers, and how many numbers the reference holds."""

    ours: Callable[[], Answers]
    theirs: Callable[[], Answers]
    parameters: int


def differences(pair: Pair) -> dict[str, float]:
    """The largest difference of each answer; 0 is no difference."""
    with torch.inference_mode():
        ours, theirs = pair.ours(), pair.theirs()
    assert ours.keys() == theirs.keys()
    for name, answer in theirs.items():
        assert answer.shape == ours[name].shape
        assert answer.isfinite().all()
        assert answer.flatten(1).std(0).max() > 1e-4, f"equal {name} of different inputs would show nothing"
    return {name: (ours[name] - theirs[name]).abs().max().item() for name in theirs}


def drawn(*shape: int) -> Tensor:
    """Random numbers, the same for the same shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def stirred(module: nn.Module) -> nn.Module:
    """The same module, its numbers moved a little: norms, biases and residual branches begin at ones and zeros."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return module


def parameters(module: nn.Module) -> int:
    """How many numbers a module learns."""
    return sum(one.numel() for one in module.parameters())


def open_clip_pair(folder: Path, name: str, *, small: bool) -> Pair:
    """A dual encoder of open_clip: `name` is of tests.tiny_open_clip when it is small, else an architecture."""
    import open_clip

    if small:
        source = open_clip_source.find_open_clip_source(f"local-dir:{open_clip_folder(folder / name, name)}")
        theirs = open_clip.create_model_from_pretrained(source.name)[0].eval()
    else:
        torch.manual_seed(0)
        theirs = stirred(open_clip.create_model(name))
        with torch.no_grad():  # batch norms that have seen pictures: an untrained ResNet tells none apart
            theirs.encode_image(drawn(8, 3, 224, 224))
        theirs.eval()
        save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, folder / "w.safetensors")
        source = open_clip_source.find_open_clip_source(f"{name}@{folder / 'w.safetensors'}")
    parts = from_open_clip.load_open_clip(source)
    ours = DualEncoder(FrameAggregator(parts.image), parts.text, log_scale=parts.log_scale, bias=parts.bias).eval()
    pictures, words = drawn(CLIPS, 3, *ours.spec.size), source.config["text_cfg"]
    ids = torch.randint(1, words.get("vocab_size", 49408), (3, words.get("context_length", 77)))

    def theirs_say() -> Answers:
        image, text = theirs.encode_image(pictures, normalize=True), theirs.encode_text(ids, normalize=True)
        logits = theirs.logit_scale.exp() * image @ text.T
        return {"visual": image, "text": text, "logits": logits + (theirs.logit_bias or 0)}

    def ours_say() -> Answers:
        clips, text = ours.encode_video(pictures[:, None]), unit(ours.text(ids))
        return {"visual": clips, "text": text, "logits": ours.logits(clips, text)}

    return Pair(ours_say, theirs_say, parameters(theirs))


def transformers_pair(folder: Path, family: str, *, table: dict | None = None) -> Pair:
    """A dual encoder, X-CLIP, or a video network of transformers; of `table` instead of the small one."""
    import transformers

    path = transformers_folder(folder / family, family, table=table)
    source = transformers_source.find_transformers_source(str(path))
    with quiet_transformers():
        theirs = getattr(transformers, f"{PREFIX[family]}Model").from_pretrained(path).eval()
    if family in from_transformers.DUAL_ENCODERS:
        return _words_pair(source, theirs)
    tower = load_tower(source, head=Head.Config(dim=8, blocks=0))
    video = drawn(CLIPS, tower.own_frames, 3, *tower.spec.size)

    def theirs_say() -> Answers:
        tokens = (theirs(video, skip_predictor=True) if family == "vjepa2" else theirs(video)).last_hidden_state
        return {"features": tokens[:, 0] if tower.family.class_token else tokens.mean(1)}

    return Pair(lambda: {"features": tower.features(video)}, theirs_say, parameters(theirs))


def _words_pair(source: transformers_source.TransformersSource, theirs: nn.Module) -> Pair:
    prompted = source.family == "xclip"
    parts = xclip.load_xclip(source) if prompted else from_transformers.load_transformers(source)
    visual = parts.visual if prompted else FrameAggregator(parts.image)
    ours = DualEncoder(visual, parts.text, log_scale=parts.log_scale, bias=parts.bias).eval()
    words = theirs.config.text_config
    ids = torch.randint(3, min(words.vocab_size, 1000), (3, words.max_position_embeddings))
    # X-CLIP pools at the largest id where its table says 2; SiglipConfig's is beyond its own vocabulary.
    ids[:, -1] = words.eos_token_id if 2 != words.eos_token_id < words.vocab_size else words.vocab_size - 1
    frames = theirs.config.vision_config.num_frames if prompted else 1
    video = drawn(CLIPS, frames, 3, *ours.spec.size)

    def theirs_say() -> Answers:
        said = theirs(input_ids=ids, pixel_values=video if prompted else video[:, 0])
        clips, logits = (
            (said.video_embeds, said.logits_per_video) if prompted else (said.image_embeds, said.logits_per_image)
        )
        return {"visual": clips, "text": said.text_embeds, "logits": logits}

    def ours_say() -> Answers:
        text = ours.text(ids)
        if not prompted:
            clips = ours.encode_video(video)
            return {"visual": clips, "text": unit(text), "logits": ours.logits(clips, unit(text))}
        clips, beside = ours.embed_prompted(video, text)
        logits = [ours.logits(clip[None], own) for clip, own in zip(clips, beside, strict=True)]
        return {"visual": clips, "text": beside, "logits": torch.cat(logits)}

    return Pair(ours_say, theirs_say, parameters(theirs))


def vivit_pair(folder: Path, table: dict) -> Pair:
    """Our own joint ViViT and transformers' VivitModel of that table."""
    from transformers import VivitConfig, VivitModel

    torch.manual_seed(0)
    theirs = stirred(VivitModel(VivitConfig(**table), add_pooling_layer=False)).eval()
    tower = vivit_like(theirs)
    video = drawn(CLIPS, tower.spec.frames, 3, *tower.spec.size)
    return Pair(
        lambda: {"features": tower(video)},
        lambda: {"features": theirs(video).last_hidden_state[:, 0]},
        parameters(theirs),
    )


def vivit_like(theirs: nn.Module) -> ViViT:
    """Our joint model with the sizes and the weights of a VivitModel."""
    sizes = theirs.config
    steps = sizes.num_frames // sizes.tubelet_size[0]
    tower = ViViT(
        ViViT.Config(
            width=sizes.hidden_size,
            layers=sizes.num_hidden_layers,
            heads=sizes.num_attention_heads,
            hidden=sizes.intermediate_size,
            tubelet=sizes.tubelet_size[0],
            patch=sizes.tubelet_size[1],
            attention="joint",
            class_token="clip",
            activation="gelu_tanh",
            head=Head.Config(dim=sizes.hidden_size, blocks=0, norm_eps=1e-6),
        ),
        spec=ClipSpec(frames=sizes.num_frames, size=(sizes.image_size, sizes.image_size)),
    )
    state = theirs.state_dict()
    positions = state["embeddings.position_embeddings"][0]
    patches = state["embeddings.patch_embeddings.projection.weight"]
    weights = {
        "embed.weight": rearrange(patches, "d c u p q -> d (c u p q)"),
        "embed.bias": state["embeddings.patch_embeddings.projection.bias"],
        "class_token": state["embeddings.cls_token"][0, 0] + positions[0],
        "positions": rearrange(positions[1:], "(t l) d -> t l d", t=steps),
        "head.norm.weight": state["layernorm.weight"],
        "head.norm.bias": state["layernorm.bias"],
        "head.project.weight": torch.eye(sizes.hidden_size),
        "head.project.bias": torch.zeros(sizes.hidden_size),
    }
    names = {
        "norm_attention": "layernorm_before",
        "norm_mlp": "layernorm_after",
        "attention.proj": "attention.o_proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    for layer in range(sizes.num_hidden_layers):
        for kind in ("weight", "bias"):
            for our_name, their_name in names.items():
                weights[f"blocks.{layer}.{our_name}.{kind}"] = state[f"layers.{layer}.{their_name}.{kind}"]
            parts = [state[f"layers.{layer}.attention.{part}_proj.{kind}"] for part in "qkv"]
            weights[f"blocks.{layer}.attention.qkv.{kind}"] = torch.cat(parts)
    tower.load_state_dict(weights)
    return tower.eval()


def videomae_pair(folder: Path, table: dict, *, mask: MaskConfig) -> Pair:
    """Our masked autoencoder and transformers' VideoMAEForPreTraining of that table, with one mask for both."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining
    from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    torch.manual_seed(0)
    theirs = stirred(VideoMAEForPreTraining(VideoMAEConfig(**table, use_mean_pooling=False))).eval()
    spec = ClipSpec(
        frames=theirs.config.num_frames,
        size=(theirs.config.image_size,) * 2,
        mean=tuple(IMAGENET_DEFAULT_MEAN),
        std=tuple(IMAGENET_DEFAULT_STD),
    )
    ours = autoencoder_like(theirs, spec)
    video = drawn(CLIPS, spec.frames, 3, *spec.size)
    steps, places = ours.encoder.patches(video).shape[1:3]
    generator = torch.Generator().manual_seed(2)
    chosen = draw_mask(mask, clips=CLIPS, steps=steps, places=places, generator=generator)
    hidden = torch.zeros(CLIPS, steps * places, dtype=torch.bool).scatter(1, chosen.masked, True)
    # Their pixels of a patch have the channels last.
    last = partial(rearrange, pattern="b m (c k) -> b m (k c)", c=3)

    def ours_say() -> Answers:
        predicted, target = ours(video, chosen), ours.target(video)
        losses = [
            masked_mse(predicted[one], target[one], masked=chosen.masked[one]) for one in (slice(0, 1), slice(1, 2))
        ]
        tokens = ours.norm(ours.encoder.encode_visible(video, chosen.visible))
        return {"encoder": tokens, "predicted": last(predicted), "loss": torch.stack(losses)[:, None]}

    def theirs_say() -> Answers:
        losses = [theirs(video[one], hidden[one]).loss for one in (slice(0, 1), slice(1, 2))]
        tokens = theirs.videomae(video, hidden).last_hidden_state
        return {"encoder": tokens, "predicted": theirs(video, hidden).logits, "loss": torch.stack(losses)[:, None]}

    return Pair(ours_say, theirs_say, parameters(theirs))


def autoencoder_like(theirs: nn.Module, spec: ClipSpec) -> MaskedAutoencoder:
    """Our masked autoencoder with the sizes and the weights of a VideoMAEForPreTraining."""
    sizes = theirs.config
    encoder = ViViT.Config(
        width=sizes.hidden_size,
        layers=sizes.num_hidden_layers,
        heads=sizes.num_attention_heads,
        hidden=sizes.intermediate_size,
        tubelet=sizes.tubelet_size,
        patch=sizes.patch_size,
        attention="joint",
        class_token="none",
        positions="number_sines",
        norm_eps=sizes.layer_norm_eps,
    )
    decoder = DecoderConfig(
        width=sizes.decoder_hidden_size,
        layers=sizes.decoder_num_hidden_layers,
        heads=sizes.decoder_num_attention_heads,
        hidden=sizes.decoder_intermediate_size,
    )
    ours = MaskedAutoencoder(ViViT(encoder, spec=spec), decoder)
    state = theirs.state_dict()
    weights = {
        "encoder.embed.weight": state["videomae.embeddings.patch_embeddings.projection.weight"].flatten(1),
        "encoder.embed.bias": state["videomae.embeddings.patch_embeddings.projection.bias"],
        "narrow.weight": state["encoder_to_decoder.weight"],
        "mask_token": state["mask_token"][0, 0],
    }
    for kind in ("weight", "bias"):
        weights[f"norm.{kind}"] = state[f"videomae.layernorm.{kind}"]
        weights[f"norm_decoded.{kind}"] = state[f"decoder.norm.{kind}"]
        weights[f"paint.{kind}"] = rearrange(state[f"decoder.head.{kind}"], "(k c) ... -> (c k) ...", c=3)
    names = {
        "norm_attention": "layernorm_before",
        "norm_mlp": "layernorm_after",
        "attention.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    blocks = [(f"encoder.blocks.{n}", f"videomae.encoder.layer.{n}") for n in range(sizes.num_hidden_layers)]
    blocks += [(f"decoder.{n}", f"decoder.decoder_layers.{n}") for n in range(sizes.decoder_num_hidden_layers)]
    for our_block, their_block in blocks:
        for kind in ("weight", "bias"):
            for our_name, their_name in names.items():
                weights[f"{our_block}.{our_name}.{kind}"] = state[f"{their_block}.{their_name}.{kind}"]
        attention = f"{their_block}.attention.attention"
        query, value = (state[f"{attention}.{part}.bias"] for part in ("query", "value"))
        weights[f"{our_block}.attention.qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])
        parts = [state[f"{attention}.{part}.weight"] for part in ("query", "key", "value")]
        weights[f"{our_block}.attention.qkv.weight"] = torch.cat(parts)
    head = {f"encoder.head.{name}": value for name, value in ours.encoder.head.state_dict().items()}
    ours.load_state_dict(weights | head)
    return ours.eval()


def swin3d_pair(folder: Path, variant: str, *, frames: int) -> Pair:
    """Video Swin: torchvision's own model, whose classifier ours lets go and the comparison borrows."""
    from torchvision.models import video as models

    torch.manual_seed(0)
    theirs = getattr(models, f"swin3d_{variant[0]}")(num_classes=5).eval()
    tower = Swin3D(Swin3D.Config(variant=variant), spec=ClipSpec(frames=frames, size=(224, 224))).eval()
    torch.save(theirs.state_dict(), folder / f"{variant}.pth")
    _fill(tower, str(folder / f"{variant}.pth"))
    video = drawn(CLIPS, frames, 3, 224, 224)
    return Pair(
        lambda: {"logits": theirs.head(tower.features(video))},
        lambda: {"logits": theirs(rearrange(video, "b t c h w -> b c t h w"))},
        parameters(theirs),
    )


_VIVIT = {"image_size": 32, "num_frames": 6, "tubelet_size": [2, 8, 8], "hidden_size": 32, "num_hidden_layers": 3}
_VIVIT |= {"num_attention_heads": 4, "intermediate_size": 48}
_VIDEOMAE = {"image_size": 32, "num_frames": 4, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2}
_VIDEOMAE |= {"num_attention_heads": 4, "intermediate_size": 48, "decoder_hidden_size": 24}
_VIDEOMAE |= {"decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32}
_TUBE, _RANDOM = MaskConfig(ratio=0.9), MaskConfig(kind="random", ratio=0.75)
_BASE = {"num_frames": 8}
_VJEPA = {"frames_per_clip": 8, "hidden_size": 768, "num_hidden_layers": 12}
_VJEPA |= {"num_attention_heads": 12, "pred_num_hidden_layers": 1}

SMALL: dict[str, Callable[[Path], Pair]] = {
    **{
        f"open_clip {name}": partial(open_clip_pair, name=name, small=True)
        for name in ("vit", "siglip", "mobileclip", "resnet", "coca")
    },
    **{
        f"transformers {family}": partial(transformers_pair, family=family)
        for family in ("clip", "siglip", "xclip", "videomae", "timesformer", "vivit", "vjepa2")
    },
    "ViViT, ours": partial(vivit_pair, table=_VIVIT),
    "VideoMAE, ours": partial(videomae_pair, table=_VIDEOMAE, mask=_TUBE),
    "VideoMAE, ours, of pictures": partial(
        videomae_pair, table=_VIDEOMAE | {"num_frames": 1, "tubelet_size": 1}, mask=_RANDOM
    ),
    "swin3d tiny": partial(swin3d_pair, variant="tiny", frames=4),
}
PUBLISHED: dict[str, Callable[[Path], Pair]] = {
    **{
        f"open_clip {name}": partial(open_clip_pair, name=name, small=False)
        for name in ("ViT-B-32-quickgelu", "RN50", "ViT-B-16-SigLIP", "MobileCLIP-S1", "coca_ViT-B-32")
    },
    "transformers CLIPModel": partial(transformers_pair, family="clip", table={}),
    "transformers SiglipModel": partial(transformers_pair, family="siglip", table={}),
    "transformers XCLIPModel": partial(transformers_pair, family="xclip", table={}),
    "transformers VideoMAEModel": partial(transformers_pair, family="videomae", table=_BASE),
    "transformers TimesformerModel": partial(transformers_pair, family="timesformer", table=_BASE),
    "transformers VivitModel": partial(transformers_pair, family="vivit", table=_BASE),
    "transformers VJEPA2Model": partial(transformers_pair, family="vjepa2", table=_VJEPA),
    "ViViT, ours, and VivitModel": partial(vivit_pair, table=_BASE),
    "VideoMAE, ours, and VideoMAEForPreTraining": partial(videomae_pair, table={}, mask=_TUBE),
    "torchvision swin3d_t": partial(swin3d_pair, variant="tiny", frames=8),
    "torchvision swin3d_s": partial(swin3d_pair, variant="small", frames=8),
    "torchvision swin3d_b": partial(swin3d_pair, variant="base", frames=8),
}
