"""A model, or a visual tower alone, as a folder: config.json, model.safetensors, the tokenizer's files, MODEL_CARD.md.

Written beside and renamed, so that a folder is whole or absent. Read without any training code and without
running anything from the folder: JSON, safetensors and a tokenizer table, no pickle. The text tower can be left on
disk until a sentence has to be encoded.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clipact import aliases
from clipact.atomic_write import atomic_folder
from clipact.config import to_table
from clipact.errors import ConfigError, ModelError
from clipact.models import towers
from clipact.models.dual_encoder import DualEncoder
from clipact.models.model_config import FORMAT, WEIGHTS, ModelConfig, Precision, read_config
from clipact.models.towers.tower import SkipInit, TextTower, VisualTower

Made = TypeVar("Made", bound=torch.nn.Module)


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


def load_checkpoint(folder: str | Path, *, defer_text: bool = False) -> DualEncoder:
    """The model in a checkpoint folder: fp32, on the CPU, in evaluation mode.

    With `defer_text` the text tower's weights stay on disk until a sentence is encoded.
    """
    folder = Path(folder)
    config = read_config(folder)
    if not config.text:
        raise ModelError(
            f"{folder} holds a visual tower without words; begin from it with clipact train, where a recipe says "
            f'init.visual.tower = "{config.visual["tower"]}" and init.pretrained.visual = "{folder}"'
        )
    visual = _visual(folder, config)

    def load_text() -> TextTower:
        return _made(lambda: towers.text_from(config.text, folder), folder, "text.").eval()

    text = DeferredText(load_text, dim=config.dim) if defer_text else load_text()
    scalars = _tensors(folder, lambda key: key in ("log_scale", "bias"))
    if "log_scale" not in scalars:
        raise ModelError(f"{folder / WEIGHTS} has no log_scale: it is not a clipact model's weights")
    encoder = DualEncoder(
        visual,
        text,
        log_scale=float(scalars["log_scale"]),
        bias=float(scalars["bias"]) if "bias" in scalars else None,
    )
    return encoder.eval()


def load_visual(folder: str | Path) -> VisualTower:
    """The visual tower in a checkpoint folder, whether words lie beside it or not: fp32, on the CPU, not training."""
    return _visual(Path(folder), read_config(folder)).eval()


def _visual(folder: Path, config: ModelConfig) -> VisualTower:
    return _made(lambda: towers.visual_from(config.visual, config.clip), folder, "visual.")


class DeferredText(TextTower):
    """A text tower that is loaded when it is first asked; until then it costs nothing and has no parameters."""

    def __init__(self, load: Callable[[], TextTower], *, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self._load = load
        self.tower: TextTower | None = None
        self.place: Tensor
        self.register_buffer("place", torch.empty(0), persistent=False)  # follows .to(device)

    @property
    def loaded(self) -> bool:
        """Whether the weights have been read."""
        return self.tower is not None

    def materialise(self) -> TextTower:
        """The tower itself, read from disk the first time."""
        if self.tower is None:
            self.tower = self._load().to(self.place.device)
        return self.tower

    def tokenize(self, sentences: Sequence[str]) -> Int[Tensor, "b l"]:
        """Token ids; loads the tower."""
        return self.materialise().tokenize(sentences)

    def forward(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b d"]:
        """The features of each sentence; loads the tower."""
        features: Tensor = self.materialise()(ids)
        return features

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer's files; loads the tower."""
        self.materialise().save_tokenizer(folder)


def _made(make: Callable[[], Made], folder: Path, prefix: str) -> Made:
    """The tower that `make` makes, with its weights from the file.

    At first its own are not even allocated: drawing mini's at random would take 0.4 s, and pretending to draw them on
    the meta device imports torch._dynamo (1 s). A tower that computes tensors which no file holds is made once more,
    in memory.
    """
    try:
        with torch.device("meta"), SkipInit():
            tower = make()
        if any(buffer.is_meta for buffer in _unsaved(tower)):
            with SkipInit():
                tower = make()
    except ConfigError as error:
        raise ModelError(f"{folder / 'config.json'}: {error}") from error
    _fill(tower, folder, prefix)
    return tower


def _unsaved(tower: torch.nn.Module) -> list[Tensor]:
    kept = tower.state_dict().keys()
    return [buffer for name, buffer in tower.named_buffers() if name not in kept]


def _tensors(folder: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys() if wanted(key)}  # noqa: SIM118
    except FileNotFoundError:
        raise ModelError(f"{folder} is no whole clipact model: it has no {WEIGHTS}") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or no safetensors file: {error}") from error


def _fill(tower: torch.nn.Module, folder: Path, prefix: str) -> None:
    """Give a tower its weights from the file, in fp32."""
    weights = {
        key.removeprefix(prefix): value.float() if value.is_floating_point() else value
        for key, value in _tensors(folder, lambda key: key.startswith(prefix)).items()
    }
    renamed = aliases.rename_weights(weights, tower.state_dict().__contains__)
    try:
        tower.load_state_dict({renamed.get(key, key): value for key, value in weights.items()}, assign=True)
    except RuntimeError as error:
        raise ModelError(f"{folder / WEIGHTS} does not fit its config.json: {error}") from error
