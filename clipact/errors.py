"""Every error that a user can meet, drawn as one tree.

    ClipactError                 what was seen, what is allowed, what to do next
    ├── UsageError               the words given were wrong: nothing was done (exit code 2)
    │   ├── ConfigError          a key or value in a TOML file or a model's config.json
    │   ├── ManifestError        a line of a table of training data; carries path, line and cause
    │   └── LabelError           labels or templates that cannot be used
    ├── VideoError               one file could not give its frames; carries path and cause
    ├── DataError                too many files of a data set cannot be read, or what reads them has died
    ├── ModelError               a model that is not there, not whole, or not what it says
    │   └── DownloadError        the hub could not be reached, or refused
    ├── TrainingError            a training run that cannot go on, or whose gradient cannot be trusted
    ├── MissingLibraryError      a library that only some models or indexes need is not installed
    ├── CacheError               the cache on disk cannot be read or written
    ├── LabelIndexError          a label index that is not there, not whole, or another model's
    ├── CalibrationError         a calibration that cannot be made, is not whole, or is of other answers
    ├── FeatureFileError         a file of embeddings that is not there, not whole, of other clips, or cannot be written
    └── ResultError              an evaluation's result that is not there, not whole, or cannot be written

The command line prints the message without a traceback. Anything else that escapes is a bug in clipact.
"""

import difflib
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any


class ClipactError(Exception):
    """The root: catch this one to catch all that clipact raises on purpose."""

    exit_code = 1


class UsageError(ClipactError):
    """What was asked for cannot be meant; nothing was done."""

    exit_code = 2


class ConfigError(UsageError):
    """A key or a value in a configuration file is not one that clipact knows."""


class ManifestError(UsageError):
    """A table of training data that cannot be used: `path` and `line` (None: the whole file) say where, `cause` why."""

    def __init__(self, path: str | Path, line: int | None, cause: str) -> None:
        self.path = str(path)
        self.line = line
        self.cause = cause
        super().__init__(f"{self.path}{'' if line is None else f', line {line}'}: {cause}")

    def __reduce__(self) -> tuple[type["ManifestError"], tuple[str, int | None, str]]:
        return (type(self), (self.path, self.line, self.cause))


class LabelError(UsageError):
    """Labels or templates that cannot be turned into sentences."""


class VideoError(ClipactError):
    """A video could not give the frames asked for: `path` says which, `cause` why."""

    def __init__(self, path: str | Path, cause: str) -> None:
        self.path = str(path)
        self.cause = cause
        super().__init__(f"{self.path}: {cause}")

    def __reduce__(self) -> tuple[type["VideoError"], tuple[str, str]]:
        return (type(self), (self.path, self.cause))


class DataError(ClipactError):
    """A data set of which too many files cannot be read, or whose workers have died."""


class ModelError(ClipactError):
    """A model is missing, incomplete, or does not match what was asked of it."""


class DownloadError(ModelError):
    """Weights could not be fetched from a model hub."""


class TrainingError(ClipactError):
    """A training run cannot go on, or its gradient cannot be trusted."""


class MissingLibraryError(ClipactError):
    """A library that only some models or indexes need is not installed."""


class CacheError(ClipactError):
    """The cache folder cannot be used."""


class LabelIndexError(ClipactError):
    """A label index is missing, damaged, made by another model, or cannot be written."""


class CalibrationError(ClipactError):
    """A calibration cannot be fitted or written, is missing or damaged, or is of another model, words or frames."""


class FeatureFileError(ClipactError):
    """A file of embeddings is missing, damaged, none of clipact's, or of another model; or it cannot be written."""


class ResultError(ClipactError):
    """What an evaluation left on disk is missing, not whole, of another version, or cannot be written."""


INSTALLS = {
    "faiss": "faiss-cpu>=1.8",
    "open_clip": "open_clip_torch>=3.0",
    "pyarrow": "clipact[parquet]",
    "timm": "timm>=1.0.17",
    "torchvision": "torchvision>=0.19",
    "transformers": "transformers>=5.16",
}
"""Libraries that are imported where they are used, and what pip is asked for."""


def import_library(name: str) -> Any:
    """Import a library of INSTALLS, or a module of it, when it is first needed.

    Args:
        name: Such as "faiss" or "open_clip.transformer".

    Raises:
        MissingLibraryError: It, or one of the others that it imports, is not installed; the message has the command.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in INSTALLS:
            raise
        raise MissingLibraryError(f"{library} is not installed: pip install '{INSTALLS[library]}'") from error


def choices(seen: str, allowed: Iterable[str]) -> str:
    """The tail of a sentence about a wrong name: the nearest known one first, then all of them."""
    known = sorted(allowed)
    near = difflib.get_close_matches(seen, known, n=1, cutoff=0.6)
    start = f"did you mean {near[0]!r}? Known" if near else "known"
    return f"{start}: {', '.join(known)}"
