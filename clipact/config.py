"""Read configuration strictly: TOML tables become frozen dataclasses. Find the files that come with clipact.

An unknown key, a missing one, or a value of another type is a ConfigError that names the key and the nearest known one.
Shipped files (mini, prompts, protocols) lie under clipact/_assets in a wheel, and at the root of a checkout.
"""

import dataclasses
import tomllib
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from clipact.errors import ConfigError, UsageError, choices

T = TypeVar("T")


def load_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file; ConfigError when it is missing or is not TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def parse(kind: type[T], table: Mapping[str, Any], *, where: str = "") -> T:
    """An instance of the dataclass `kind`, its fields taken from `table`; `where` prefixes keys in messages."""
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(cast(Any, kind)) if field.init}
    for key in table:
        if key not in fields:
            raise ConfigError(f"unknown key {where + key!r}; {choices(key, fields)}")
    missing = [
        where + name
        for name, field in fields.items()
        if name not in table and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"missing {', '.join(missing)}")
    values = {key: _convert(hints[key], value, where + key) for key, value in table.items()}
    return kind(**values)


def override(
    table: Mapping[str, Any],
    assignment: str,
    *,
    rename: Callable[[dict[str, Any]], dict[str, Any]] = lambda assigned: assigned,
) -> dict[str, Any]:
    """Return a copy of `table` with one `a.b=value` carried out; the value is read as TOML, else as a plain string.

    `rename` is given the assignment as a table of its own, and returns it with other names at the same depth, or empty.
    """
    path, equals, text = assignment.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise ConfigError(f"{assignment!r} is not of the form a.b=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    assigned: Any = value
    for key in reversed(keys):
        assigned = {key: assigned}
    value = rename(assigned)
    for level in range(len(keys)):
        if not value:
            return dict(table)
        ((keys[level], value),) = value.items()
    changed = dict(table)
    inner = changed
    for key in keys[:-1]:
        below = inner.get(key, {})
        if not isinstance(below, Mapping):
            raise ConfigError(f"{assignment!r}: {key} holds a value, not a table")
        inner[key] = dict(below)
        inner = inner[key]
    inner[keys[-1]] = value
    return changed


def to_table(instance: Any) -> dict[str, Any]:
    """The plain table that `parse` turns back into an equal instance; fields that are None are left out."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            values = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
            return {key: plain(inner) for key, inner in values.items() if inner is not None}
        if isinstance(value, Mapping):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, (tuple, list)):
            return [plain(inner) for inner in value]
        return str(value) if isinstance(value, Path) else value

    return cast(dict[str, Any], plain(instance))


def _convert(hint: Any, value: Any, key: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{key} is {value!r}; {choices(str(value), map(str, arguments))}")
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        failures = []
        for argument in arguments:
            if argument is type(None):
                continue
            try:
                return _convert(argument, value, key)
            except ConfigError as failure:
                failures.append(failure)
        raise failures[0]
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(inner) != len(value):
            raise ConfigError(f"{key} has {len(value)} values; it takes {len(inner)}")
        return tuple(_convert(h, v, f"{key}[{i}]") for i, (h, v) in enumerate(zip(inner, value, strict=True)))
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {k: _convert(arguments[1], v, f"{key}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return parse(cast(type[Any], hint), value, where=f"{key}.")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is not bool and isinstance(value, bool)):
        return value
    wanted = getattr(hint, "__name__", str(hint))
    raise ConfigError(f"{key} is {value!r} ({type(value).__name__}); it takes {wanted}")


def check_probability(name: str, value: float) -> None:
    """ConfigError, which names the setting, when a chance does not lie in 0..1, 1 left out."""
    if not 0 <= value < 1:
        raise ConfigError(f"{name} is {value:g}; it takes a chance from 0, below 1")


_PACKAGE = Path(__file__).parent
_CHECKOUT = _PACKAGE.parent
_ROOTS = (_PACKAGE / "_assets", *([_CHECKOUT] if (_CHECKOUT / "pyproject.toml").is_file() else []))


def asset_path(name: str) -> Path:
    """The file or folder `name`, such as "mini" or "prompts/templates/action.toml"; UsageError when absent."""
    for root in _ROOTS:
        if (root / name).exists():
            return root / name
    folder, _, leaf = name.rpartition("/")
    raise UsageError(f"clipact carries no {name!r}; {choices(leaf, asset_names(folder))}")


def asset_names(folder: str) -> list[str]:
    """The names in an asset folder, sorted, without hidden files; empty when there is no such folder."""
    for root in _ROOTS:
        if (root / folder).is_dir():
            return sorted(p.name for p in (root / folder).iterdir() if not p.name.startswith((".", "_")))
    return []
