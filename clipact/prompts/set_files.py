"""Where label sets and prompt sets are found, and how their files are read; each class says what it takes from them."""

from pathlib import Path
from typing import Literal, TypeVar

from clipact.assets import asset_names, asset_path
from clipact.config import load_toml, parse
from clipact.errors import ConfigError, LabelError, choices

T = TypeVar("T")
Kind = Literal["labels", "templates"]
_CALLED = {"labels": "label set", "templates": "prompt set"}


def set_names(kind: Kind) -> list[str]:
    """The names of the sets that come with clipact, sorted."""
    return [name.removesuffix(".toml") for name in asset_names(f"prompts/{kind}") if name.endswith(".toml")]


def holds_templates(name_or_path: str | Path) -> bool:
    """Whether it is a prompt set by its name or its file, and not a label set."""
    path = Path(name_or_path).expanduser()
    if path.suffix == ".toml" and path.is_file():
        return "templates" in load_toml(path)
    return str(name_or_path) in set_names("templates")


def find_set(name_or_path: str | Path, kind: Kind) -> Path:
    """The file of a set: a shipped one by its name, another by its path; LabelError when it is neither."""
    names = set_names(kind)
    if name_or_path in names:
        return asset_path(f"prompts/{kind}/{name_or_path}.toml")
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    if path.suffix or len(path.parts) > 1:
        raise LabelError(f"{path}: no such file")
    raise LabelError(f"there is no {_CALLED[kind]} {str(path)!r}; {choices(str(path), names)}; or give a file's path")


def read_set(form: type[T], path: Path) -> T:
    """The TOML file as an instance of the dataclass `form`; ConfigError names the file and the key."""
    try:
        return parse(form, load_toml(path))
    except ConfigError as error:
        if str(error).startswith(str(path)):
            raise
        raise ConfigError(f"{path}: {error}") from error
