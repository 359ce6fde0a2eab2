"""Read a model, or a visual tower alone, from a checkpoint folder: config.json, model.safetensors, a tokenizer's files.

Nothing from the folder is run: JSON, safetensors and a tokenizer's table, no pickle, and no training code. Importing
this file, and reading a configuration, does not import torch: the command line needs a model's frames and size before,
and decodes the video while torch is imported.
"""

import csv
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from clipact.aliases import rename, rename_weights
from clipact.clip_spec import ClipSpec
from clipact.config import asset_path, parse
from clipact.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import torch

    from clipact.models.dual_encoder import DualEncoder
    from clipact.models.towers.tower import TextTower, VisualTower

FORMAT = 1
WEIGHTS = "model.safetensors"
FILES_SEEN = "trained_on.csv"
OPEN_CLIP_CONFIG = "open_clip_config.json"
Precision = Literal["fp32", "bf16", "fp16"]
AnyTower = TypeVar("AnyTower", bound="torch.nn.Module")
_TOKENIZERS = ("*token*", "vocab*", "merges.txt", "*.model")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The contents of config.json: how to make the towers again, their input, what they were trained on.

    visual, text  tables that name a tower and carry its configuration; text is empty where a visual tower stands alone
    clip          how clips are prepared
    dim           width of an embedding
    precision     what it was trained in (autocast), and may encode clips in: see `clipact.models.zoo.pick_precision`
    trained_on    data sets whose samples shaped the weights, by name: scores on these are not zero-shot
    """

    format: int
    name: str
    visual: dict[str, Any]
    text: dict[str, Any] = field(default_factory=dict)
    clip: ClipSpec
    dim: int
    precision: Precision = "fp32"
    trained_on: tuple[str, ...] = ()
    license: str = ""
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of a supervised model; () for one with a text tower."""
        return tuple(self.text["labels"]) if self.text.get("tower") == "label_embeddings" else ()


@dataclass(frozen=True, kw_only=True)
class FileSeen:
    """A file that a model was trained on: a line of trained_on.csv.

    path             below its source's root
    source           the manifest below the data folder, or the protocol, that named it; "" in older tables
    sha256           of its bytes; "" when it could not be read
    difference_hash  of the picture in it (see `clipact.data.fingerprint`); "" for a video, and in older tables
    """

    path: str
    source: str = ""
    sha256: str
    difference_hash: str = ""


def checkpoint_folder(name: str) -> Path | None:
    """The folder that `name` means: "mini" is the embedded one, else a path that exists; None for other models."""
    if name == "mini":
        return asset_path("mini")
    return Path(name) if Path(name).is_dir() else None


def read_config(folder: str | Path) -> ModelConfig:
    """What the folder's config.json says.

    ModelError when it is not a checkpoint that this version reads; of another library's model it says how to name it.
    """
    path = Path(folder) / "config.json"
    if (Path(folder) / OPEN_CLIP_CONFIG).is_file():
        raise ModelError(f"{folder} is a folder of open_clip's: call it open_clip:local-dir:{folder}")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{folder} is no clipact model: it has no config.json") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if is_transformers_config(table):
        raise ModelError(f"{folder} is a folder of transformers': call it transformers:{folder}")
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        seen = table.get("format") if isinstance(table, dict) else None
        raise ModelError(f"{path}: format is {seen!r}; this version of clipact reads format {FORMAT}")
    try:
        return parse(ModelConfig, rename(table, "model", quiet=Path(folder) == asset_path("mini")))
    except ConfigError as error:
        raise ModelError(f"{path}: {error}") from error


def is_transformers_config(table: object) -> bool:
    """Whether this is what transformers writes into a config.json, and not what clipact does."""
    return isinstance(table, dict) and "model_type" in table and "format" not in table


def read_files_seen(folder: str | Path) -> dict[str, FileSeen]:
    """The files that a model's weights saw, as training writes them down, by sha256; {} when nobody did."""
    path = Path(folder) / FILES_SEEN
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        names = [field.name for field in fields(FileSeen) if field.name in rows[0]] if rows else []
        return {row["sha256"]: FileSeen(**{name: row[name] for name in names}) for row in rows if row["sha256"]}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError) as error:
        raise ModelError(f"{path} cannot be read: wanted is a CSV table with the columns path and sha256") from error


def tokenizer_files(folder: Path) -> list[str]:
    """The names of the files that a model's words are cut up with, sorted."""
    return sorted({path.name for pattern in _TOKENIZERS for path in folder.glob(pattern) if path.is_file()})


def weights_hash(folder: str | Path) -> str:
    """The hex sha256 of config.json, model.safetensors and the tokenizer's files together.

    Two models that differ in anything that an answer hangs on differ here.
    """
    folder = Path(folder)
    digest = hashlib.sha256()
    for name in ("config.json", WEIGHTS, *tokenizer_files(folder)):
        digest.update(name.encode())
        try:
            with (folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ModelError(f"{folder} is no whole clipact model: {name}: {error.strerror}") from error
    return digest.hexdigest()


def load_checkpoint(folder: str | Path, *, defer_text: bool = False) -> "DualEncoder":
    """The model in a checkpoint folder: fp32, on the CPU, in evaluation mode.

    With `defer_text` the text tower's weights stay on disk until a sentence is encoded.
    """
    from clipact.models import towers
    from clipact.models.dual_encoder import DualEncoder
    from clipact.models.towers.text import DeferredText

    folder = Path(folder)
    config = read_config(folder)
    if not config.text:
        raise ModelError(
            f"{folder} holds a visual tower without words; train from it with clipact train, where a recipe has "
            f'init.visual.tower = "{config.visual["tower"]}" and init.pretrained.visual = "{folder}"'
        )
    visual = _visual(folder, config)

    def load_text() -> "TextTower":
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


def load_visual(folder: str | Path) -> "VisualTower":
    """The visual tower in a checkpoint folder, whether words lie beside it or not: fp32, on the CPU, not training."""
    return _visual(Path(folder), read_config(folder)).eval()


def _visual(folder: Path, config: ModelConfig) -> "VisualTower":
    from clipact.models import towers

    return _made(lambda: towers.visual_from(config.visual, config.clip), folder, "visual.")


def _made(make: Callable[[], AnyTower], folder: Path, prefix: str) -> AnyTower:
    """The tower that `make` makes, with its weights from the file.

    At first its own are not even allocated: drawing mini's at random would take 0.4 s, and pretending to draw them on
    the meta device imports torch._dynamo (1 s). A tower that computes tensors which no file holds is made once more,
    in memory.
    """
    import torch

    from clipact.models.towers.tower import SkipInit

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


def _unsaved(tower: "torch.nn.Module") -> "list[torch.Tensor]":
    kept = tower.state_dict().keys()
    return [buffer for name, buffer in tower.named_buffers() if name not in kept]


def _tensors(folder: Path, wanted: Callable[[str], bool]) -> "dict[str, torch.Tensor]":
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys() if wanted(key)}  # noqa: SIM118
    except FileNotFoundError:
        raise ModelError(f"{folder} is no whole clipact model: it has no {WEIGHTS}") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or no safetensors file: {error}") from error


def _fill(tower: "torch.nn.Module", folder: Path, prefix: str) -> None:
    """Give a tower its weights from the file, in fp32."""
    weights = {
        key.removeprefix(prefix): value.float() if value.is_floating_point() else value
        for key, value in _tensors(folder, lambda key: key.startswith(prefix)).items()
    }
    renamed = rename_weights(weights, tower.state_dict().__contains__)
    try:
        tower.load_state_dict({renamed.get(key, key): value for key, value in weights.items()}, assign=True)
    except RuntimeError as error:
        raise ModelError(f"{folder / WEIGHTS} does not fit its config.json: {error}") from error
