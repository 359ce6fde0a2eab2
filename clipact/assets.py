"""Where the files that come with clipact lie: in a wheel under clipact/_assets, in a checkout at its root.

Only finds; reading is the caller's. A name that is not there is answered with those that are.
"""

from pathlib import Path

from clipact.errors import UsageError, choices

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
