"""Keys and values of earlier versions in saved files, and the names that replaced them.

Every reader of a file that clipact wrote, or that a person wrote for it, passes the table it read through `rename`.
A key that was replaced is read under its new name, with one warning that says both. This file is the only place that
knows an old name; a new alias is one line in a table here.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from clipact.errors import ConfigError

_SAMPLING = {"middles": "segment_centers"}
_VISUAL_TOWERS = {"frames": "frame_aggregator", "attentive": "attention_pool"}
_TEXT_TOWERS = {"labels": "label_embeddings"}
_BUDGET = {
    "train.memory_gb": "train.graph_memory_gb",
    "optim.average_decay": "optim.ema_decay",
    "optim.start_share": "optim.wise_ft_alpha",
}
_BUDGETS = ("whole", "head", "pretraining")  # tables of a comparison's settings, each with train and optim

KEYS: dict[str, dict[str, str]] = {
    "recipe": {
        "start": "init",
        "init.parts": "init.pretrained",
        "visual.learns": "visual.trainable",
        "text.learns": "text.trainable",
        "judge": "validation",
        "validation.every": "validation.every_steps",
        "validation.best": "validation.monitor",
        "validation.sets.*.card": "validation.sets.*.protocol",
        "teach": "distillation",
        "distillation.models": "distillation.teachers",
        "distillation.share": "distillation.weight",
        "data.views": "data.cached_augmentations",
        "data.broken_limit": "data.max_unreadable",
        "data.sources.*.card": "data.sources.*.protocol",
        "data.sources.*.vary": "data.sources.*.caption_augmentation",
        **_BUDGET,
        **{f"{table}.{old}": f"{table}.{new}" for table in _BUDGETS for old, new in _BUDGET.items()},
    },
    "protocol": {"data.also": "data.aliases"},
    "result": {
        "run.card": "run.protocol",
        "run.data.also": "run.data.aliases",
        "run.asked": "run.request_key",
        "run.place": "run.name_key",
        "run.comparison.learnt": "run.comparison.trainable_parameters",
    },
    "calibration": {
        "judgement": "params",
        "answers": "target",
        "figures": "metrics",
        "params.false_rejections": "params.false_rejection_rate",
    },
    "training state": {"broken": "unreadable_files", "kept_chunks": "retained_chunks"},
    "label index": {
        "about": "metadata",
        "nearest": "faiss",
        "faiss.recipe": "faiss.factory",
        "faiss.width": "faiss.search_effort",
    },
}
"""By the kind of file: paths of keys, applied in this order; `*` stands for every item of a list."""

VALUES: dict[str, dict[str, dict[str, str]]] = {
    "recipe": {
        "init.visual.tower": _VISUAL_TOWERS,
        "init.text.tower": _TEXT_TOWERS,
        "init.clip.sampling": _SAMPLING,
        "clip.sampling": _SAMPLING,
    },
    "model": {"visual.tower": _VISUAL_TOWERS, "text.tower": _TEXT_TOWERS, "clip.sampling": _SAMPLING},
    "protocol": {"views.sampling": _SAMPLING},
    "result": {"run.views.sampling": _SAMPLING},
    "calibration": {"target.views.sampling": _SAMPLING},
}
"""By the kind of file: values of a key, by the path of that key under its new name."""

_REMOVED_RECIPE: dict[str, tuple[Any, str]] = {
    "train.accumulate": (1, "a larger train.batch in chunks of the same size takes its place"),
    "optim.eps": (1e-6, "it is 1e-6"),
    "optim.final_lr": (0.0, "the cosine ends at 0"),
    "optim.visual_lr": (1.0, "set optim.lr for the visual tower and optim.text_lr for the text tower"),
}
REMOVED: dict[str, dict[str, tuple[Any, str]]] = {
    "recipe": _REMOVED_RECIPE
    | {f"{table}.{key}": removed for table in _BUDGETS for key, removed in _REMOVED_RECIPE.items()},
}
"""By the kind of file: keys that have no successor, the one value that is still read, and what to do instead."""

COLUMNS = {"also": "extra_labels"}
"""Columns of a manifest."""

WEIGHTS = {"attend": "qkv", "merge": "proj", "grow": "fc1", "shrink": "fc2"}
"""Parts of the names of a model's weights."""

STATE_TENSORS = {"average": "ema", "beginning": "initial_weights"}
"""What the names of tensors in a training state begin with."""


_warned: set[tuple[str, str]] = set()  # what has been said in this process: once is enough


def rename(table: Mapping[str, Any], kind: str, *, quiet: bool = False) -> dict[str, Any]:
    """Return the table with the keys and values of earlier versions under their new names.

    Args:
        table: What was read; it is not changed.
        kind: A key of `KEYS` or `VALUES`.
        quiet: Whether to leave out the warning, for files that came with clipact.

    Raises:
        ConfigError: Both an old key and the one that replaced it are given, or a removed key has a value that is no
            longer possible.
    """
    found: dict[str, Any] = _copy(table)
    renamed: list[str] = []
    for old, new in KEYS.get(kind, {}).items():
        if _move(found, old, new, kind=kind):
            renamed.append(f"{old} is now {new}")
    for path, values in VALUES.get(kind, {}).items():
        *above, key = path.split(".")
        for place in _places(found, above):
            if isinstance(value := place.get(key), str) and value in values:
                place[key] = values[value]
                renamed.append(f"{key} {value!r} is now {values[value]!r}")
    for path, (value, instead) in REMOVED.get(kind, {}).items():
        *above, key = path.split(".")
        for place in _places(found, above):
            if key in place and (given := place.pop(key)) != value:
                raise ConfigError(f"{path} is {given!r}, but this key was removed: {instead}")
    if renamed and not quiet:
        _warn(kind, renamed)
    return found


def rename_columns(names: Iterable[str]) -> dict[str, str]:
    """Return the new name of each column of a manifest that has one, with one warning that says both.

    Raises:
        ConfigError: Both an old column and the one that replaced it are there.
    """
    names = list(names)
    renamed = {name: COLUMNS[name] for name in names if name in COLUMNS}
    for old, new in renamed.items():
        if new in names:
            raise ConfigError(f"it has the columns {old} and {new}, which are one: put all of it under {new}")
    if renamed:
        _warn("manifest", [f"column {old} is now {new}" for old, new in renamed.items()])
    return renamed


def rename_weights(names: Iterable[str], expected: Callable[[str], bool]) -> dict[str, str]:
    """Return the new name of each tensor that `expected` does not know by its own."""
    renamed = {}
    for name in names:
        first, *parts = name.split(".")
        new = ".".join([STATE_TENSORS.get(first, WEIGHTS.get(first, first)), *(WEIGHTS.get(p, p) for p in parts)])
        if new != name and not expected(name):
            renamed[name] = new
    return renamed


def cache_text(text: str) -> str:
    """Return a text that a cache key is made of with the values of earlier versions, so that old entries are found."""
    for old, new in _SAMPLING.items():
        text = text.replace(repr(new), repr(old))
    return text


def _warn(kind: str, renamed: list[str]) -> None:
    new = [one for one in dict.fromkeys(renamed) if (kind, one) not in _warned]
    _warned.update((kind, one) for one in new)
    if new:
        keys = "; ".join(new)
        warnings.warn(f"this {kind} has names of an earlier version, which are still read: {keys}", stacklevel=3)


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def _places(table: Any, path: list[str]) -> list[dict[str, Any]]:
    """The tables at a path."""
    if not path:
        return [table] if isinstance(table, dict) else []
    if path[0] == "*":
        return [place for inner in table for place in _places(inner, path[1:])] if isinstance(table, list) else []
    return _places(table[path[0]], path[1:]) if isinstance(table, dict) and path[0] in table else []


def _move(table: dict[str, Any], old: str, new: str, *, kind: str) -> bool:
    """Give the key at the end of a path another name in its place; whether it was there."""
    moved = False
    *above, before = old.split(".")
    after = new.split(".")[-1]
    for place in _places(table, above):
        if before not in place:
            continue
        if after in place:
            raise ConfigError(f"this {kind} has {old} and {new}, which are one key: put all of it under {new}")
        # In its own place: the order of keys is kept, for what depends on it.
        items = [(after if key == before else key, value) for key, value in place.items()]
        place.clear()
        place.update(items)
        moved = True
    return moved
