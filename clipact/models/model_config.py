"""What a checkpoint folder says of itself, read without torch.

The command line needs a model's frames and size before it can afford to import torch: the video is decoded meanwhile.
"""

import csv
import hashlib
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from clipact import aliases
from clipact.assets import asset_path
from clipact.clip_spec import ClipSpec
from clipact.config import parse
from clipact.errors import ConfigError, ModelError

FORMAT = 1
WEIGHTS = "model.safetensors"
FILES_SEEN = "trained_on.csv"
OPEN_CLIP_CONFIG = "open_clip_config.json"
Precision = Literal["fp32", "bf16", "fp16"]
_TOKENIZERS = ("*token*", "vocab*", "merges.txt", "*.model")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """config.json: how to make the towers again, what they eat, what they were trained on.

    visual, text  tables that name a tower and carry its configuration; text is empty where a visual tower stands alone
    clip          how clips are prepared
    dim           width of an embedding
    precision     what it learnt in (autocast), which is what it may see clips in: see `clipact.models.zoo.pick_precision`
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
        """All that a supervised model can say; () for one that knows words."""
        return tuple(self.text["labels"]) if self.text.get("tower") == "label_embeddings" else ()


@dataclass(frozen=True, kw_only=True)
class FileSeen:
    """A file that a model's weights saw: a line of trained_on.csv.

    path             below its source's root
    source           the manifest below the data folder, or the protocol card, that named it; "" in older tables
    sha256           of its bytes; "" when it could not be read
    difference_hash  of the picture in it (`clipact.data.fingerprint`); "" for a video, and in older tables
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
        return parse(ModelConfig, aliases.rename(table, "model", quiet=Path(folder) == asset_path("mini")))
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
