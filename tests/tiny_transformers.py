"""Small models in transformers' own folders, with random weights: the architectures are real, their sizes are not."""

import json
import string
from pathlib import Path

import torch

from tests.tiny_open_clip import save_tokenizer

_SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
_BYTES = ["!", '"', *string.ascii_lowercase, "Ã", "¤", ",", "."]
_CLIP_WORDS = {
    word: i
    for i, word in enumerate([*_BYTES, *(f"{letter}</w>" for letter in _BYTES), "<|startoftext|>", "<|endoftext|>"])
}
_END = len(_CLIP_WORDS) - 1
_CLIP_TEXT = {**_SMALL, "vocab_size": _END + 1, "pad_token_id": _END, "bos_token_id": _END - 1, "eos_token_id": _END}
_SIGLIP_TEXT = {**_SMALL, "vocab_size": 32, "max_position_embeddings": 16, "pad_token_id": 1, "bos_token_id": 2}
_VIT = {**_SMALL, "image_size": 32, "patch_size": 8}

# family -> (what transformers' config.json says, its preprocessor_config.json)
MODELS: dict[str, tuple[dict, dict]] = {
    "clip": (
        {"text_config": _CLIP_TEXT, "vision_config": _VIT, "projection_dim": 16},
        {"size": {"shortest_edge": 35}, "crop_size": {"height": 32, "width": 32}},
    ),
    "siglip": (
        {"text_config": {**_SIGLIP_TEXT, "eos_token_id": 1}, "vision_config": _VIT},
        {"size": {"height": 32, "width": 32}},
    ),
    "siglip2": (
        {
            "text_config": {**_SIGLIP_TEXT, "pad_token_id": 0, "eos_token_id": 1},
            "vision_config": {**_SMALL, "patch_size": 8, "num_patches": 16},
        },
        {"patch_size": 8, "max_num_patches": 16},
    ),
    "xclip": (
        {
            "text_config": {**_CLIP_TEXT, "eos_token_id": 2},
            "vision_config": {**_VIT, "num_frames": 4, "mit_hidden_size": 16, "mit_intermediate_size": 24,
                              "mit_num_attention_heads": 2, "mit_num_hidden_layers": 1},
            "projection_dim": 16, "prompt_num_attention_heads": 2, "prompt_layers": 1,
        },
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "resample": 2},
    ),
    "videomae": ({**_VIT, "num_frames": 4}, {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
    "timesformer": ({**_VIT, "num_frames": 4}, {"size": {"shortest_edge": 36}, "crop_size": 32}),
    "vivit": ({**_VIT, "num_frames": 4, "tubelet_size": [2, 8, 8]},
              {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}),
    "vjepa2": (
        {**{key: value for key, value in _SMALL.items() if key != "intermediate_size"}, "patch_size": 8,
         "crop_size": 32, "frames_per_clip": 4, "mlp_ratio": 1.5, "pred_hidden_size": 24,
         "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1},
        {"crop_size": {"height": 32, "width": 32}},
    ),
}  # fmt: skip
PREFIX = {
    "clip": "CLIP", "siglip": "Siglip", "siglip2": "Siglip2", "xclip": "XCLIP", "videomae": "VideoMAE",
    "timesformer": "Timesformer", "vivit": "Vivit", "vjepa2": "VJEPA2",
}  # fmt: skip
VIDEO = ("videomae", "timesformer", "vivit", "vjepa2")


def transformers_folder(
    folder: Path,
    family: str,
    *,
    seed: int = 0,
    pickled: bool = False,
    cut: bool = False,
    table: dict | None = None,
) -> Path:
    """A folder as transformers writes it, for one of MODELS; weights as a pickle, or cut into many files, if wanted.

    A `table` takes the place of the small one; {} is what transformers makes of nothing: the size that is published.
    """
    import transformers

    from clipact.models.hub.transformers import quiet_transformers

    preprocess = MODELS[family][1] if table is None else {}
    table = MODELS[family][0] if table is None else table
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(seed)
        config = getattr(transformers, f"{PREFIX[family]}Config")(**table)
        model = getattr(transformers, f"{PREFIX[family]}Model")(config)
        with torch.no_grad():
            for parameter in model.parameters():  # norms and biases begin at ones and zeros
                parameter.add_(0.05 * torch.randn(parameter.shape))
        model.save_pretrained(folder, max_shard_size="40KB" if cut else "1GB")
        if pickled:
            (folder / "model.safetensors").unlink()
            torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocess))
        save_words(folder, family)
    return folder


def save_words(folder: Path, family: str) -> None:
    """Write a family's tokenizer, of letters, if it has one."""
    from transformers import CLIPTokenizer, Siglip2Tokenizer

    if family == "siglip":  # letters: its own tokenizer needs sentencepiece
        save_tokenizer(folder)
    elif family in VIDEO:
        return
    elif family == "siglip2":
        words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *string.ascii_lowercase]
        Siglip2Tokenizer({word: i for i, word in enumerate(words)}, padding_side="right").save_pretrained(folder)
    else:
        CLIPTokenizer(dict(_CLIP_WORDS), merges=[]).save_pretrained(folder)
