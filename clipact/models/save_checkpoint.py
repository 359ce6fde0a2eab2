"""Save a model, or a visual tower alone, as a checkpoint folder that `clipact.models.checkpoint` reads.

The folder holds config.json, model.safetensors, the tokenizer's files and MODEL_CARD.md, and is written in one step.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from clipact.atomic_write import atomic_folder
from clipact.config import to_table
from clipact.errors import ModelError
from clipact.models import towers
from clipact.models.checkpoint import FORMAT, WEIGHTS, ModelConfig, Precision
from clipact.models.dual_encoder import DualEncoder
from clipact.models.towers.tower import TextTower, VisualTower


def save_model(
    encoder: DualEncoder,
    folder: str | Path,
    *,
    name: str,
    precision: Precision = "fp32",
    trained_on: Sequence[str] = (),
    license: str = "",
    card: str | None = None,
    dtype: torch.dtype | None = None,
    notes: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write the model as a folder and return its path; an older folder of that name is replaced whole.

    `precision` is what it learnt in; `dtype` (torch.float16, say) converts weights on the way out, scalars excepted.
    `card` is MODEL_CARD.md's text, one that says what config.json knows unless given; `files` are further texts by
    name. ModelError when the folder cannot be written; an older one is untouched then.
    """
    return _write(
        Path(folder),
        encoder.visual,
        encoder.text,
        encoder.state_dict(),
        card=card,
        dtype=dtype,
        files=files or {},
        name=name,
        precision=precision,
        trained_on=trained_on,
        license=license,
        notes=notes or {},
    )


def save_visual(
    tower: VisualTower,
    folder: str | Path,
    *,
    name: str,
    precision: Precision = "fp32",
    trained_on: Sequence[str] = (),
    license: str = "",
    dtype: torch.dtype | None = None,
    notes: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """As `save_model`, of a visual tower alone, which learnt without words: training begins from it."""
    return _write(
        Path(folder),
        tower,
        None,
        {f"visual.{key}": value for key, value in tower.state_dict().items()},
        card=None,
        dtype=dtype,
        files=files or {},
        name=name,
        precision=precision,
        trained_on=trained_on,
        license=license,
        notes=notes or {},
    )


def _write(
    folder: Path,
    visual: VisualTower,
    text: TextTower | None,
    weights: Mapping[str, Tensor],
    *,
    card: str | None,
    dtype: torch.dtype | None,
    files: Mapping[str, str],
    name: str,
    precision: Precision,
    trained_on: Sequence[str],
    license: str,
    notes: Mapping[str, Any],
) -> Path:
    config = ModelConfig(
        format=FORMAT,
        name=name,
        visual=towers.describe(visual),
        text={} if text is None else towers.describe(text),
        clip=visual.spec,
        dim=visual.dim,
        precision=precision,
        trained_on=tuple(trained_on),
        license=license,
        notes=dict(notes),
    )
    texts = {"MODEL_CARD.md": _plain_card(config) if card is None else card, **files}
    tensors = {
        key: (value.to(dtype) if dtype is not None and value.is_floating_point() and value.ndim else value).contiguous()
        for key, value in weights.items()
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder) as new:
            save_file(tensors, new / WEIGHTS, metadata={"format": "pt"})
            if text is not None:
                text.save_tokenizer(new)
            table = json.dumps(to_table(config), indent=2, ensure_ascii=False)
            (new / "config.json").write_text(table + "\n", encoding="utf-8")
            for file_name, said in texts.items():
                (new / file_name).write_text(said, encoding="utf-8")
            for file in new.iterdir():  # safetensors writes for the owner alone
                file.chmod(0o644)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder} cannot be written: {error}") from error
    return folder


def _plain_card(config: ModelConfig) -> str:
    """What is known of a model without a card of its own, for people; it claims nothing that nobody measured."""
    clip, figures = config.clip, config.notes.get("figures") or {}
    made_of = f"Visual tower: {config.visual['tower']}, without words; its head has learnt nothing."
    if config.text:
        made_of = (
            f"Towers: {config.visual['tower']} (visual), {config.text['tower']} (text); embeddings of {config.dim}."
        )
    lines = [
        f"# {config.name}",
        "",
        f"- {made_of}",
        *([f"- Labels: {', '.join(config.labels)}. It knows no others."] if config.labels else []),
        f"- Input: {clip.frames} frames of {clip.size[1]} x {clip.size[0]}, {clip.sampling}.",
        f"- Trained on: {', '.join(config.trained_on) or 'not said'}. On these it is not zero-shot.",
        f"- Licence: {config.license or 'not said'}.",
        *(f"- {name}, during training: {value:.4g}." for name, value in figures.items()),
    ]
    return "\n".join(lines) + "\n"
