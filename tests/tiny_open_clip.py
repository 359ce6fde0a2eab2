"""Small models in open_clip's own folders, with random weights: the architectures are real, their sizes are not."""

import json
import string
from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import save_file

_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
_VIT = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}

INCEPTION = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "squash"}
MOBILE = {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear", "resize_mode": "shortest"}

# name -> (model_cfg, preprocess_cfg)
MODELS: dict[str, tuple[dict, dict]] = {
    "vit": ({"embed_dim": 16, "vision_cfg": _VIT, "text_cfg": _TEXT, "quick_gelu": True}, {}),
    # SigLIP (arXiv 2303.15343): attention pooling, a bias, sentences seen from both sides, a tokenizer of its own.
    "siglip": (
        {
            "embed_dim": 64,
            "init_logit_bias": -10,
            "custom_text": True,
            "vision_cfg": {
                "image_size": 160,
                "timm_model_name": "test_vit",
                "timm_model_pretrained": False,
                "timm_pool": "map",
                "timm_proj": "none",
            },
            "text_cfg": {
                "context_length": 64,
                "vocab_size": 64,
                "hf_tokenizer_name": "tiny/siglip",
                "tokenizer_kwargs": {"clean": "canonicalize"},
                "width": 32,
                "heads": 2,
                "layers": 2,
                "no_causal_mask": True,
                "proj_bias": True,
                "pool_type": "last",
                "norm_kwargs": {"eps": 1e-6},
            },
        },
        INCEPTION,
    ),
    # MobileCLIP-S0's image network (arXiv 2311.17049) whole, a text network of two layers.
    "mobileclip": (
        {
            "embed_dim": 16,
            "vision_cfg": {
                "timm_model_name": "fastvit_mci0",
                "timm_model_pretrained": False,
                "timm_pool": "avg",
                "timm_proj": None,
                "timm_drop": 0.0,
                "timm_drop_path": 0.0,
                "image_size": 256,
            },
            "text_cfg": {**_TEXT, "no_causal_mask": True},
            "custom_text": True,
        },
        MOBILE,
    ),
    # The convolutional network of CLIP (arXiv 2103.00020, RN50) with its attention pooling.
    "resnet": (
        {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
            "text_cfg": _TEXT,
        },
        {},
    ),
    # CoCa (arXiv 2205.01917): its networks answer with their tokens too, and a decoder comes along.
    "coca": (
        {
            "embed_dim": 16,
            "custom_text": True,
            "vision_cfg": {**_VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
            "text_cfg": {**_TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
            "multimodal_cfg": {"context_length": 76, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
        },
        {},
    ),
}


def timm_inside(name: str) -> dict:
    """The table of a model of open_clip's whose image network is one of timm's own for tests, of 160 pixels."""
    network = {"timm_model_name": name, "timm_pool": "avg", "timm_proj": "linear", "image_size": 160}
    return {"embed_dim": 16, "vision_cfg": network}


def open_clip_folder(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """A folder as open_clip makes it, for one of MODELS."""
    import open_clip

    config, preprocess = deepcopy(MODELS[kind])
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    if "hf_tokenizer_name" in config["text_cfg"]:
        save_tokenizer(folder)
    config["vision_cfg"].pop("timm_model_pretrained", None)
    custom = config.pop("custom_text", False)
    makers = {False: open_clip.CLIP, True: open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = makers[custom](**config)
        torch.nn.init.normal_(model.logit_scale, mean=2.0, std=0.1)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / _WEIGHTS)
    return folder


_WEIGHTS = "open_clip_model.safetensors"


def save_tokenizer(folder: Path) -> None:
    """Write a tokenizer of letters in transformers' files; 1 pads and ends, as SigLIP's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    table = {"<unk>": 0, "</s>": 1, **{letter: i for i, letter in enumerate(string.ascii_lowercase, start=2)}}
    letters = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=letters, unk_token="<unk>", eos_token="</s>", pad_token="</s>"
    ).save_pretrained(folder)
