"""Find the models on this machine: the embedded one, those in folders, and those in a hub's cache.

Nothing is fetched and no network is built: all facts are read from files. One that `clipact.models.zoo`
would refuse, as far as files tell, is left out, with why. A model in the cache counts when its weights are there.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipact.clip_spec import ClipSpec
from clipact.config import asset_path
from clipact.errors import ConfigError, MissingLibraryError, ModelError, UsageError, choices
from clipact.models import towers
from clipact.models.checkpoint import OPEN_CLIP_CONFIG, WEIGHTS, read_config, tokenizer_files
from clipact.models.hub import open_clip_source, transformers_source, transformers_video
from clipact.models.hub.transformers import DUAL_ENCODERS, preprocess_of
from clipact.models.hub.transformers_source import transformers_clip_spec

_DEPTH = 4  # folders below the one that is searched: runs/NAME/last


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """Describe a model on this machine.

    name        what --model takes
    megabytes   of its weights, in 10^6 bytes
    license     as its files say; "" where they do not
    input       frames x height x width
    trained_on  data sets whose samples shaped the weights, () when unknown
    path        where it lies
    """

    name: str
    megabytes: float
    license: str
    input: str
    trained_on: tuple[str, ...]
    path: Path


def find_models(folders: Sequence[str | Path] = (".",)) -> tuple[list[LocalModel], list[str]]:
    """Find the models under these folders, after mini and before those in the hub's cache.

    Returns:
        The models, and why others were left out.

    Raises:
        UsageError: A folder does not exist.
    """
    found, wrong = [_folder("mini", asset_path("mini"))], []
    for folder in folders:
        if not Path(folder).is_dir():
            raise UsageError(f"{folder} is no folder: models are looked for in folders")
    places = [(path, "") for folder in folders for path in _walk(Path(folder))]
    seen = {asset_path("mini").resolve()}
    for path, repository in [*places, *_cached()]:
        if (place := path.resolve()) in seen:
            continue
        seen.add(place)
        try:
            for model in _in_cache(repository, path) if repository else _in_folder(path):
                found.append(model)
        except (ModelError, MissingLibraryError, OSError) as error:
            wrong.append(str(error))
    return found, wrong


def _walk(folder: Path) -> Iterator[Path]:
    """The folder and those below it, to a depth, without hidden ones."""
    for place, below, _ in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        below[:] = sorted(name for name in below if not name.startswith(".") and depth < _DEPTH)
        yield Path(place)


def _in_folder(path: Path) -> list[LocalModel]:
    if (path / OPEN_CLIP_CONFIG).is_file():
        name = f"local-dir:{path}"
        return [_open_clip(f"open_clip:{name}", open_clip_source.find_open_clip_source(name), path)]
    if transformers_source.is_transformers_folder(path):
        return _transformers(f"transformers:{path}", path)
    if (path / "config.json").is_file() and (path / WEIGHTS).is_file() and "format" in _table(path / "config.json"):
        return [_folder(str(path), path)] if read_config(path).text else []  # a tower alone answers to no words
    return []


def _folder(name: str, path: Path) -> LocalModel:
    config = read_config(path)
    try:
        towers.check_tables(config.visual, config.text)
    except ConfigError as error:
        raise ModelError(f"{path / 'config.json'}: {error}") from error
    if not config.labels and not tokenizer_files(path):
        raise ModelError(f"{path} is no whole clipact model: it has no tokenizer")
    return LocalModel(
        name=name,
        megabytes=_megabytes([path / WEIGHTS]),
        license=config.license,
        input=_size(config.clip),
        trained_on=config.trained_on,
        path=path,
    )


def _cached() -> Iterator[tuple[Path, str]]:
    """The newest snapshot of each repository of models in the hub's cache, and the repository's name."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return
    for repository in sorted(repositories, key=lambda one: one.repo_id):
        newest = max(repository.revisions, key=lambda one: one.last_modified, default=None)
        if repository.repo_type == "model" and newest is not None:
            yield newest.snapshot_path, repository.repo_id


def _in_cache(repository: str, path: Path) -> Iterator[LocalModel]:
    names = {file.name for file in path.iterdir()}
    if OPEN_CLIP_CONFIG in names and names & set(open_clip_source.OPEN_CLIP_WEIGHTS):
        source = open_clip_source.find_open_clip_source(f"local-dir:{path}")
        yield _open_clip(f"open_clip:hf-hub:{repository}", source, path)
    elif any(
        Path(name).suffix in open_clip_source.READABLE for name in names - set(transformers_source.TRANSFORMERS_WEIGHTS)
    ):
        for source in open_clip_source.listed_sources(repository, path):
            yield _open_clip(f"open_clip:{source.name}", source, path)
    if names & set(transformers_source.TRANSFORMERS_WEIGHTS) and transformers_source.is_transformers_folder(path):
        trained_on = transformers_source.transformers_trained_on(repository)
        yield from _transformers(f"transformers:{repository}", path, trained_on=trained_on)


def _open_clip(name: str, source: open_clip_source.OpenClipSource, path: Path) -> LocalModel:
    size = source.config["vision_cfg"].get("image_size", 224)  # open_clip's default
    height, width = (size, size) if isinstance(size, int) else size
    return LocalModel(
        name=name,
        megabytes=_megabytes([source.weights]),
        license=source.license,
        input=_size(ClipSpec(size=(height, width))),
        trained_on=source.trained_on,
        path=path,
    )


def _transformers(name: str, path: Path, *, trained_on: tuple[str, ...] = ()) -> list[LocalModel]:
    table = _table(path / transformers_source.CONFIG)
    if (family := table["model_type"]) in transformers_video.VIDEO_NETWORKS:
        raise ModelError(
            f"{name} is a visual tower alone, a {family!r}: `clipact train` begins from it with init.pretrained.visual"
        )
    if family not in DUAL_ENCODERS:
        if "vision_config" not in table:  # a model of language, say: nothing for video
            return []
        raise ModelError(f"{name} is a {family!r}, which clipact has no use for; {choices(str(family), DUAL_ENCODERS)}")
    source = transformers_source.find_transformers_source(str(path))
    frames = ClipSpec().frames
    if family == "xclip":
        frames = (table.get("vision_config") or {}).get("num_frames", frames)  # transformers' default is 8, too
    return [
        LocalModel(
            name=name,
            megabytes=_megabytes(source.files),
            license=source.license,
            input=_size(transformers_clip_spec(family, preprocess_of(source), frames=frames)),
            trained_on=trained_on,
            path=path,
        )
    ]


def _table(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(table, dict):
        raise ModelError(f"{path} holds no table")
    return table


def _megabytes(files: Sequence[Path]) -> float:
    """Of the files together; ModelError for one that was cut short."""
    from safetensors import SafetensorError, safe_open

    for file in files:
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, framework="np"):
                    pass
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} is damaged or no safetensors file: {error}") from error
    return sum(file.stat().st_size for file in files) / 1e6


def _size(spec: ClipSpec) -> str:
    return " x ".join(map(str, (spec.frames, *spec.size)))
