"""Which models are on this machine: the embedded one, folders, and what a hub's cache holds. Read without torch.

Nothing is asked of a network. A model in the cache counts when its weights are there whole.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipact.assets import asset_path
from clipact.clip_spec import ClipSpec
from clipact.errors import ModelError, UsageError
from clipact.model_config import OPEN_CLIP_CONFIG, WEIGHTS, read_config
from clipact.towers import open_clip_source, transformers_source

_DEPTH = 4  # folders below the one that is searched: runs/NAME/last
_UNKNOWN = "see its card"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A model that is here.

    name        what --model takes
    megabytes   of its weights, in 10^6 bytes
    license     as its files say
    input       frames x height x width, as far as its files say
    trained_on  data sets whose samples shaped the weights, () when unknown
    path        where it lies
    """

    name: str
    megabytes: float
    license: str
    input: str
    trained_on: tuple[str, ...]
    path: Path


def find_models(folders: Sequence[str | Path] = (".",)) -> tuple[list[Kept], list[str]]:
    """The models under these folders, mini before and the cache's after them; and what could not be read, with why.

    UsageError for a folder that does not exist.
    """
    found, wrong = [_folder("mini", asset_path("mini"))], []
    for folder in folders:
        if not Path(folder).is_dir():
            raise UsageError(f"{folder} is no folder: models are looked for in folders")
        for path in _walk(Path(folder)):
            try:
                found += _in_folder(path)
            except ModelError as error:
                wrong.append(str(error))
    found += _in_cache()
    once: dict[Path, Kept] = {}
    for kept in found:
        once.setdefault(kept.path.resolve(), kept)
    return list(once.values()), wrong


def _walk(folder: Path) -> Iterator[Path]:
    """The folder and those below it, to a depth, without hidden ones."""
    for place, below, _ in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        below[:] = sorted(name for name in below if not name.startswith(".") and depth < _DEPTH)
        yield Path(place)


def _in_folder(path: Path) -> list[Kept]:
    if (path / OPEN_CLIP_CONFIG).is_file():
        return _open_clip(f"open_clip:local-dir:{path}", path)
    if transformers_source.is_transformers_folder(path):
        return _transformers(f"transformers:{path}", path)
    if (path / "config.json").is_file() and (path / WEIGHTS).is_file() and "format" in _table(path / "config.json"):
        return [_folder(str(path), path)]
    return []


def _folder(name: str, path: Path) -> Kept:
    config = read_config(path)
    return Kept(
        name=name,
        megabytes=_megabytes([path / WEIGHTS]),
        license=config.license or "not said",
        input=_size(config.clip.frames, *config.clip.size),
        trained_on=config.trained_on,
        path=path,
    )


def _in_cache() -> list[Kept]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    found = []
    for repository in sorted(repositories, key=lambda one: one.repo_id):
        newest = max(repository.revisions, key=lambda one: one.last_modified, default=None)
        if repository.repo_type != "model" or newest is None:
            continue
        path, name = newest.snapshot_path, repository.repo_id
        if (path / OPEN_CLIP_CONFIG).is_file():
            found += _open_clip(f"open_clip:hf-hub:{name}", path)
        elif any((path / file).is_file() for file in open_clip_source.WEIGHTS):
            found += [kept for listed in open_clip_source.listed_names(name) for kept in _open_clip(listed, path)]
        elif transformers_source.is_transformers_folder(path):
            found += _transformers(f"transformers:{name}", path)
    return found


def _open_clip(name: str, path: Path) -> list[Kept]:
    weights = [file for file in path.iterdir() if file.suffix in open_clip_source.READABLE]
    if not weights:
        return []
    config = path / OPEN_CLIP_CONFIG
    size = _table(config).get("model_cfg", {}).get("vision_cfg", {}).get("image_size") if config.is_file() else None
    return [
        Kept(
            name=name,
            megabytes=_megabytes(weights[:1]),
            license=_UNKNOWN,
            input=_square(size),
            trained_on=open_clip_source.trained_on(name.rpartition("/")[2]),
            path=path,
        )
    ]


def _transformers(name: str, path: Path) -> list[Kept]:
    weights = [file for file in path.iterdir() if file.suffix in (".safetensors", ".bin")]
    table = _table(path / "config.json")
    if not weights or "vision_config" not in table:  # without, it has one tower alone: no model for classify
        return []
    return [
        Kept(
            name=name,
            megabytes=_megabytes(weights),
            license=_UNKNOWN,
            input=_square(table["vision_config"].get("image_size")),
            trained_on=transformers_source.trained_on(name.removeprefix("transformers:")),
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
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def _square(size: Any) -> str:
    height, width = (size, size) if isinstance(size, int) else size or (0, 0)
    return _size(ClipSpec().frames, height, width) if height else "not said"


def _size(frames: int, height: int, width: int) -> str:
    return f"{frames} x {height} x {width}"
