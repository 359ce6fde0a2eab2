"""Find the files of a transformers model by its name; they are fetched when it is a repository on a hub.

    FOLDER     a folder that save_pretrained wrote, or a copy of a repository
    ORG/NAME   a repository; a folder of that name comes first

Only JSON and tables of tokens are read here; weights are looked at by the files that make networks of them, and code
that a repository brings is never fetched.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipact.cache import content_key
from clipact.clip_spec import ClipSpec, Interpolation
from clipact.errors import ConfigError, ModelError
from clipact.models.checkpoint import is_transformers_config
from clipact.models.download import CARD, card_license, file_sha256, hub_file, hub_folder

_CLIP = {"image_mean": ClipSpec().mean, "image_std": ClipSpec().std}
_HALF = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
_IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
_NO_CROP: dict[str, Any] = {"do_center_crop": False, "crop_size": None}
_CROP_224: dict[str, Any] = {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 224}
_INTERPOLATION: dict[int, Interpolation] = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


# What each family's processor does where its file is silent.
DEFAULTS: dict[str, dict[str, Any]] = {
    "clip": {**_CROP_224, "resample": 3, **_CLIP},
    "siglip": {**_NO_CROP, "size": {"height": 224, "width": 224}, "resample": 3, **_HALF},
    "siglip2": {
        **_NO_CROP,
        "size": {"height": 256, "width": 256},
        "resample": 2,
        **_HALF,
        "patch_size": 16,
        "max_num_patches": 256,
    },
    "xclip": {**_CROP_224, "resample": 2, **_HALF},
    "videomae": {**_CROP_224, "resample": 2, **_HALF},
    "timesformer": {**_CROP_224, "resample": 2, **_IMAGENET},
    "vivit": {
        **_CROP_224,
        "size": {"shortest_edge": 256},
        "resample": 2,
        **_HALF,
        "rescale_factor": 1 / 127.5,
        "offset": True,
    },
    "vjepa2": {**_CROP_224, "size": {"shortest_edge": 292}, "crop_size": 256, "resample": 2, **_IMAGENET},
}


def transformers_clip_spec(family: str, preprocess: Mapping[str, Any], *, frames: int = 1) -> ClipSpec:
    """How a processor of that family prepares pictures, in `frames` frames; ModelError where no ClipSpec can say it.

    A SigLIP 2 that takes any shape (NaFlex) is given squares of as many patches as it takes: what its own processor
    makes of a square picture. Other shapes lose their aspect ratio.
    """
    table = {**DEFAULTS[family], **{key: value for key, value in preprocess.items() if value is not None}}
    if table["resample"] not in _INTERPOLATION:
        raise ModelError(f"resample is {table['resample']!r}; clipact resizes by {_INTERPOLATION}")
    mean, std = _normalisation(table)
    if family == "siglip2":
        side = table["patch_size"] * math.isqrt(table["max_num_patches"])
        shape: dict[str, Any] = {"size": (side, side), "resize": "squash"}
    else:
        shape = _shape(family, table)
    try:
        return ClipSpec(
            frames=frames,
            interpolation=_INTERPOLATION[table["resample"]],
            mean=mean,
            std=std,
            crop_rounding="down",
            **shape,
        )
    except ConfigError as error:
        raise ModelError(f"how pictures are prepared cannot be meant: {error}") from error


def _shape(family: str, table: Mapping[str, Any]) -> dict[str, Any]:
    size, crop = table["size"], table["crop_size"] if table.get("do_center_crop") else None
    if not table.get("do_resize", True):
        raise ModelError("do_resize is false: clipact's pictures have one size")
    if isinstance(size, int):  # older files; one number is the shorter side where something is cropped
        size = {"shortest_edge": size} if "shortest_edge" in DEFAULTS[family]["size"] else _square(size)
    crop = _square(crop) if isinstance(crop, int) else crop
    if family == "vjepa2" and crop:
        size = {"shortest_edge": int(crop["height"] * 256 / 224)}  # whatever its file says
    if crop and "shortest_edge" in size and "longest_edge" not in size:
        side, kept = size["shortest_edge"], (crop["height"], crop["width"])
        if max(kept) > side:
            raise ModelError(f"crop_size is {crop}, but the shorter side becomes {side} pixels: no padding is known")
        return {"size": kept, "shorter_side_pixels": None if kept == (side, side) else side}
    sides = (size.get("height"), size.get("width"))
    if None not in sides and (crop is None or sides == (crop["height"], crop["width"])):
        return {"size": sides, "resize": "squash"}
    raise ModelError(
        f"size is {size} and crop_size {crop}; clipact knows shortest_edge with a crop, or height and width"
    )


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _normalisation(table: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std on a 0..1 scale of (pixel x factor - offset - mean) / std."""
    factor = table.get("rescale_factor", 1 / 255) if table.get("do_rescale", True) else 1.0
    offset = 1.0 if table.get("offset") and table.get("do_rescale", True) else 0.0
    white = 255 * factor if abs(255 * factor - round(255 * factor)) > 1e-9 else round(255 * factor)
    normal = table.get("do_normalize", True)
    mean, std = (_three(table["image_mean"]), _three(table["image_std"])) if normal else (_three(0), _three(1))
    return tuple((offset + value) / white for value in mean), tuple(value / white for value in std)


def _three(value: Any) -> tuple[float, ...]:
    return (float(value),) * 3 if isinstance(value, (int, float)) else tuple(map(float, value))


CONFIG = "config.json"
TRANSFORMERS_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
PREPROCESS = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
TRANSFORMERS_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
)

# What repositories whose names begin so were trained on, as their cards say; the longest beginning counts.
TRANSFORMERS_TRAINED_ON = {
    "openai/clip-": ("WebImageText",),
    "laion/CLIP-": ("LAION",),
    "google/siglip": ("WebLI",),
    "microsoft/xclip-": ("WebImageText", "Kinetics-400"),
    "microsoft/xclip-large-patch14-kinetics-600": ("WebImageText", "Kinetics-600"),
    "microsoft/xclip-base-patch16-kinetics-600": ("WebImageText", "Kinetics-600"),
    "microsoft/xclip-base-patch16-hmdb": ("WebImageText", "Kinetics-400", "HMDB51"),
    "microsoft/xclip-base-patch16-ucf": ("WebImageText", "Kinetics-400", "UCF101"),
}


@dataclass(frozen=True, kw_only=True)
class TransformersSource:
    """A folder with a transformers model's files.

    config      config.json
    preprocess  how its pictures are prepared, as transformers says it; None where the folder does not say
    weights     the file, or the list of files when they are many
    trained_on  data sets, where the repository is a known one
    license     as its card says, where that lies in the folder
    """

    name: str
    folder: Path
    config: dict[str, Any]
    preprocess: dict[str, Any] | None
    weights: Path
    trained_on: tuple[str, ...] = ()
    license: str = ""

    @property
    def family(self) -> str:
        """What transformers calls the kind of model: "clip", "videomae"."""
        return str(self.config.get("model_type"))

    @property
    def files(self) -> list[Path]:
        """All files of weights, and the list of them when they are many."""
        if self.weights.suffix != ".json":
            return [self.weights]
        return [self.weights, *(self.folder / part for part in _parts(self.weights))]

    def key(self) -> str:
        """A hex sha256 of the weights and of all that decides how they are used."""
        tokens = [path for name in TRANSFORMERS_TOKENIZER if (path := self.folder / name).is_file()]
        facts = json.dumps([self.config, self.preprocess], sort_keys=True)
        return content_key(facts, *(path.name for path in tokens), *map(file_sha256, [*self.files, *tokens]))


def find_transformers_source(name: str) -> TransformersSource:
    """The files of the model; ModelError for a folder that has none, DownloadError when they cannot be fetched."""
    folder = Path(name).expanduser()
    local = folder.is_dir()
    if not local:
        if name.count("/") > 1 or name[:1] in (".", "/", "~"):
            raise ModelError(f"there is no folder {name}, and repositories on a hub read ORG/NAME")
        folder = _fetch(name)
    weights = next((path for known in TRANSFORMERS_WEIGHTS if (path := folder / known).is_file()), None)
    config = _read(folder / CONFIG, what="no folder of a transformers model")
    if "model_type" not in config:
        raise ModelError(f"{folder / CONFIG} describes no transformers model: it has no model_type")
    if weights is None:
        raise ModelError(f"{folder} holds no weights: {', '.join(TRANSFORMERS_WEIGHTS)}")
    source = TransformersSource(
        name=name,
        folder=folder,
        config=config,
        preprocess=_preprocess(folder),
        weights=weights,
        trained_on=() if local else transformers_trained_on(name),
        license=card_license(folder),
    )
    for file in source.files:
        if not file.is_file():
            raise ModelError(f"{folder} holds no whole model: {file.name}, which {weights.name} lists, is missing")
    return source


def transformers_trained_on(repository: str) -> tuple[str, ...]:
    """The data sets that a known repository's card names; () for others."""
    fitting = [beginning for beginning in TRANSFORMERS_TRAINED_ON if repository.startswith(beginning)]
    return TRANSFORMERS_TRAINED_ON[max(fitting, key=len)] if fitting else ()


def is_transformers_folder(folder: Path) -> bool:
    """Whether a folder is one of transformers' and not one of clipact's."""
    try:
        table = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return is_transformers_config(table)


def _fetch(repository: str) -> Path:
    folder = hub_folder(
        repository, [(CONFIG,), TRANSFORMERS_WEIGHTS], optional=(*PREPROCESS, *TRANSFORMERS_TOKENIZER, CARD)
    )
    if not (folder / TRANSFORMERS_WEIGHTS[0]).is_file() and (folder / TRANSFORMERS_WEIGHTS[1]).is_file():
        for part in _parts(folder / TRANSFORMERS_WEIGHTS[1]):
            hub_file(repository, part)
    return folder


def _parts(index: Path) -> list[str]:
    names = _read(index, what="no list of weights").get("weight_map")
    if not isinstance(names, Mapping) or not all(
        isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors") for name in names.values()
    ):
        raise ModelError(f"{index} lists no safetensors files beside it")
    return sorted(set(names.values()))


def _preprocess(folder: Path) -> dict[str, Any] | None:
    for name in PREPROCESS:
        if not (folder / name).is_file():
            continue
        table = _read(folder / name, what="no folder of a transformers model")
        if name != "processor_config.json":
            return table
        inner = table.get("image_processor", table.get("video_processor"))
        if isinstance(inner, dict):
            return inner
    return None


def _read(path: Path, *, what: str) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} is {what}: it has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(table, dict):
        raise ModelError(f"{path} holds no table")
    return table
