"""Find the files of an open_clip model by its name; they are fetched when the name is of a hub.

    ARCH/TAG           ViT-B-32/openai: an architecture and the weights that open_clip lists for it
    ARCH@FILE          the architecture with weights of one's own; ARCH/TAG@FILE prepares pictures as TAG does
    hf-hub:ORG/NAME    a repository with open_clip_config.json
    local-dir:FOLDER   a folder with the same files

A name that does not exist is answered with the nearest that do; weights are looked at by `from_open_clip` alone.
"""

import difflib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipact.cache import content_key
from clipact.errors import DownloadError, ModelError, UsageError, choices, import_library
from clipact.models.checkpoint import OPEN_CLIP_CONFIG
from clipact.models.download import CARD, card_license, file_sha256, hub_file

OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
READABLE = (".safetensors", ".bin", ".pt", ".pth")

# What the tags that say so were trained on; the longest beginning that fits counts.
OPEN_CLIP_TRAINED_ON = {
    "openai": "WebImageText",
    "yfcc15m": "YFCC15M",
    "cc12m": "CC12M",
    "laion400m": "LAION-400M",
    "laion2b": "LAION-2B",
    "laion5b": "LAION-5B",
    "frozen_laion5b": "LAION-5B",
    "laion_aesthetic": "LAION-Aesthetic",
    "datacomp": "DataComp",
    "datacompdr": "DataCompDR",
    "commonpool": "CommonPool",
    "dfn2b": "DFN-2B",
    "dfn5b": "DFN-5B",
    "dfndr2b": "DFNDR-2B",
    "merged2b": "Merged-2B",
    "metaclip": "MetaCLIP",
    "webli": "WebLI",
}


@dataclass(frozen=True, kw_only=True)
class OpenClipSource:
    """What an open_clip model is made from; everything lies on this machine, save a tokenizer that stands elsewhere.

    name        as open_clip itself calls it
    config      open_clip's table of the architecture
    preprocess  where its preparation of pictures differs from open_clip's default
    weights     the file
    folder      where the tokenizer's files lie too, for local-dir
    trained_on  data sets, where the tag says so
    license     as a repository's or a folder's card says, where that lies beside the weights
    """

    name: str
    config: dict[str, Any]
    preprocess: dict[str, Any]
    weights: Path
    folder: Path | None = None
    trained_on: tuple[str, ...] = ()
    license: str = ""

    def key(self) -> str:
        """A hex sha256 of the weights and of all that decides how they are used."""
        beside = [] if self.folder is None else sorted(self.folder.glob("*.json")) + sorted(self.folder.glob("*.model"))
        return content_key(
            json.dumps([self.name if self.folder is None else "", self.config, self.preprocess], sort_keys=True),
            *map(file_sha256, [self.weights, *beside]),
        )


def find_open_clip_source(name: str) -> OpenClipSource:
    """The files of the model; UsageError for a name that cannot be meant, DownloadError when it cannot be fetched."""
    if name.startswith("hf-hub:"):
        repository = name.removeprefix("hf-hub:")
        weights = _hub_weights(repository, *OPEN_CLIP_WEIGHTS)
        return OpenClipSource(
            name=name,
            **_read_config(hub_file(repository, OPEN_CLIP_CONFIG)),
            weights=weights,
            license=card_license(weights.parent),
        )
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:")).expanduser()
        return OpenClipSource(
            name=f"local-dir:{folder}",
            **_read_config(folder / OPEN_CLIP_CONFIG),
            weights=_weights_in(folder),
            folder=folder,
            license=card_license(folder),
        )
    listed, _, file = name.partition("@")
    architecture, _, tag = listed.partition("/")
    return _listed(architecture, tag, file=Path(file).expanduser() if file else None)


def _listed(architecture: str, tag: str, *, file: Path | None) -> OpenClipSource:
    open_clip = import_library("open_clip")

    if architecture not in (known := open_clip.list_models()):
        near = difflib.get_close_matches(architecture, known, n=6, cutoff=0)
        raise UsageError(
            f"open_clip has no architecture {architecture!r}; the nearest of its {len(known)}: {', '.join(near)}. "
            "A folder is open_clip:local-dir:FOLDER, a repository open_clip:hf-hub:ORG/NAME"
        )
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag and not open_clip.is_pretrained_cfg(architecture, tag):
        raise UsageError(f"open_clip lists no weights {tag!r} for {architecture}; {choices(tag, tags)}")
    if not tag and file is None:
        raise UsageError(
            f"open_clip:{architecture} names no weights: write open_clip:{architecture}/TAG or "
            f"open_clip:{architecture}@FILE; {choices(tag, tags)}"
        )
    settings = open_clip.get_pretrained_cfg(architecture, tag)
    config = open_clip.get_model_config(architecture)
    if settings.get("quick_gelu"):
        # open_clip only warns and computes another function than the one that was trained (ViT-B-32/openai).
        config["quick_gelu"] = True
    weights = _readable(file) if file is not None else _fetch(architecture, tag, settings)
    return OpenClipSource(
        name=architecture,
        config=config,
        preprocess=settings or _shared_preprocess(architecture, tags),
        weights=weights,
        trained_on=() if file is not None else open_clip_trained_on(tag),
        license="" if file is not None else card_license(weights.parent),
    )


def _shared_preprocess(architecture: str, tags: list[str]) -> dict[str, Any]:
    """How pictures are prepared for every tag of an architecture; open_clip's default, {}, when they differ.

    open_clip alone would prepare pictures for a SigLIP from a file as it does for CLIP.
    """
    open_clip = import_library("open_clip")

    keys = ("mean", "std", "interpolation", "resize_mode")
    settings = [{key: open_clip.get_pretrained_cfg(architecture, tag)[key] for key in keys} for tag in tags]
    return settings[0] if settings and all(each == settings[0] for each in settings) else {}


def _fetch(architecture: str, tag: str, settings: dict[str, Any]) -> Path:
    repository, names = _on_hub(settings)
    if not repository:
        raise DownloadError(
            f"{architecture}/{tag} stands on no hub, only at {settings.get('url') or 'no address'}; "
            f"fetch it yourself and name it open_clip:{architecture}/{tag}@FILE"
        )
    return _hub_weights(repository, *names)


def _hub_weights(repository: str, *names: str) -> Path:
    """The first of the files that the repository has; its card, which names the licence, comes with it."""
    with suppress(DownloadError):
        hub_file(repository, CARD)
    return hub_file(repository, *names)


def _on_hub(settings: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The repository that weights which open_clip lists lie in, "" for none, and what their file may be called."""
    repository, _, name = settings.get("hf_hub", "").rpartition("/")
    return repository, (str(Path(name).with_suffix(".safetensors")), name) if name else OPEN_CLIP_WEIGHTS


def listed_sources(repository: str, folder: Path) -> list[OpenClipSource]:
    """The models whose weights open_clip lists in this repository and whose file lies in `folder`; each file once."""
    open_clip = import_library("open_clip")

    found: dict[Path, OpenClipSource] = {}
    for architecture, tag in open_clip.list_pretrained():
        settings = open_clip.get_pretrained_cfg(architecture, tag)
        place, names = _on_hub(settings)
        weights = next((folder / name for name in names if (folder / name).is_file()), None)
        if place == repository and weights is not None:
            found.setdefault(
                weights,
                OpenClipSource(
                    name=f"{architecture}/{tag}",
                    config=open_clip.get_model_config(architecture),
                    preprocess=settings,
                    weights=weights,
                    trained_on=open_clip_trained_on(tag),
                    license=card_license(folder),
                ),
            )
    return list(found.values())


def open_clip_trained_on(tag: str) -> tuple[str, ...]:
    """The data sets that the name of a tag tells; () when it tells none."""
    tag = tag.lower().replace("-", "_")
    fitting = [beginning for beginning in OPEN_CLIP_TRAINED_ON if tag.startswith(beginning)]
    return (OPEN_CLIP_TRAINED_ON[max(fitting, key=len)],) if fitting else ()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} is no folder of an open_clip model: it has no {OPEN_CLIP_CONFIG}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    config = table.get("model_cfg") if isinstance(table, dict) else None
    if (
        not isinstance(config, dict)
        or "embed_dim" not in config
        or not all(isinstance(config.get(part), dict) for part in ("vision_cfg", "text_cfg"))
    ):
        raise ModelError(f"{path} describes no open_clip model: model_cfg needs embed_dim, vision_cfg and text_cfg")
    return {"config": config, "preprocess": table.get("preprocess_cfg") or {}}


def _weights_in(folder: Path) -> Path:
    """The folder's file of weights: open_clip's own names first, and safetensors before pickles."""
    found = [path for path in folder.iterdir() if path.suffix in READABLE]
    if not found:
        raise ModelError(f"{folder} holds no weights, such as {OPEN_CLIP_WEIGHTS[0]}")
    return min(
        found, key=lambda path: (not path.name.startswith("open_clip"), path.suffix != ".safetensors", path.name)
    )


def _readable(file: Path) -> Path:
    if not file.is_file():
        raise ModelError(f"{file}: there is no such file of weights")
    if file.suffix not in READABLE:
        raise ModelError(f"{file}: weights stand in files that end in {', '.join(READABLE)}")
    return file
