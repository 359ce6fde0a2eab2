"""Results of evaluations, sample by sample, with everything that would repeat them; metrics are computed elsewhere.

`ClassificationResult` is of labels, `RetrievalResult` of texts and visuals. On disk either is a folder with
`result.json` (names and the run) and `scores.npz` (arrays), written beside and renamed, so that a reader never meets
half of one. Nothing here needs torch, and nothing is unpickled.

`run` is a plain dict, as JSON would give it back:

    command, folder, date, seed  what was typed, in which folder, when (UTC), what random draws began from
    protocol, title, metric      the protocol: "top_1", "mean_per_class", "mean_ap" or "retrieval" is its figure
    model                        name, key (sha256 of the weights), trained_on, scale
    data                         set, source, root (samples are below it), list_sha256, files_sha256, count
    prompts                      name, templates, wording, weights, phrases (one a label)
    views                        frames, sampling, size, resize, ..., views, crops, averaging, decoder
    versions, machine            of the libraries that a figure depends on; processor, cores, threads, device
    zero_shot, zero_shot_why     True, False, or None when model or data do not say enough: see `zero_shot_status`
    partial, partial_why         whether this is less, or other, than the protocol asks; a list of reasons

`seconds` says where the time went: lookup (hashing files and asking the cache), decode and, on a CPU, encode, all
workers together; wait (for the workers), store (writing to the cache), text, words (logits); and total, which is what a
clock on the wall showed.
"""

import json
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from clipact import aliases
from clipact.atomic_write import atomic_folder, tidy
from clipact.errors import ResultError

FORMAT = 1
_KINDS = {"labels": "ClassificationResult", "retrieval": "RetrievalResult"}
_JSON, _ARRAYS = "result.json", "scores.npz"


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassificationResult:
    """The logits of n samples for every label.

    samples      names below the data folder, of what could be read; "name@2.5-4" for a part of a file
    labels       in the order of the columns of `scores`
    truth        the label_id of each sample
    scores       logits: scale x cosine (+ bias), or the log of what was averaged; see run["views"]["averaging"]
    groups       what each sample belongs to (a person, twins, a sequence): samples of one group are not independent;
                 None when each stands for itself
    parts        rows of each part of the protocol, by name, such as three test splits; may overlap; mostly empty
    multi_truth  all labels that are true of each sample, when there can be several; `truth` is then the first
    unreadable   (sample, cause) of what could not be read: none of it is a row here
    """

    samples: tuple[str, ...]
    labels: tuple[str, ...]
    truth: Int64[np.ndarray, " n"]
    scores: Float32[np.ndarray, "n l"]
    groups: tuple[str, ...] | None = None
    parts: Mapping[str, Int64[np.ndarray, " m"]] = field(default_factory=dict)
    multi_truth: Bool[np.ndarray, "n l"] | None = None
    unreadable: tuple[tuple[str, str], ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.samples), len(self.labels)) or self.truth.shape != (len(self.samples),):
            raise ValueError(f"{len(self.samples)} samples, {len(self.labels)} labels, scores {self.scores.shape}")
        if self.groups is not None and len(self.groups) != len(self.samples):
            raise ValueError(f"{len(self.samples)} samples but {len(self.groups)} groups")

    @property
    def true(self) -> Int64[np.ndarray, " n"] | Bool[np.ndarray, "n l"]:
        """What an answer is compared with: `multi_truth` where there is one, else `truth`."""
        return self.truth if self.multi_truth is None else self.multi_truth

    @property
    def absent_labels(self) -> tuple[str, ...]:
        """The labels that are chosen from and are true of no sample."""
        there = set(np.flatnonzero(self.true.any(0)) if self.true.ndim == 2 else self.true.tolist())
        return tuple(label for number, label in enumerate(self.labels) if number not in there)


@dataclass(frozen=True, kw_only=True, eq=False)
class RetrievalResult:
    """The unit vectors of n visuals and of m texts, each of which belongs to one visual.

    samples     names of the visuals that could be read; `unreadable` as in `ClassificationResult`
    texts       those of readable visuals
    text_of     the row in `visual` that each text belongs to
    groups      of the visuals, as in `ClassificationResult`
    """

    samples: tuple[str, ...]
    texts: tuple[str, ...]
    text_of: Int64[np.ndarray, " m"]
    visual: Float32[np.ndarray, "n d"]
    text: Float32[np.ndarray, "m d"]
    groups: tuple[str, ...] | None = None
    unreadable: tuple[tuple[str, str], ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.visual) != len(self.samples) or not len(self.text) == len(self.texts) == len(self.text_of):
            raise ValueError(f"{len(self.samples)} visuals, {len(self.texts)} texts, and other numbers of rows")

    @property
    def similarity(self) -> Float32[np.ndarray, "m n"]:
        """The cosine of each text with each visual."""
        return self.text @ self.visual.T


def zero_shot_status(run: Mapping[str, Any]) -> str:
    """What a reader must know before a figure is called zero-shot; every output says it."""
    if run.get("zero_shot"):
        return "zero-shot"
    status = "not zero-shot" if run.get("zero_shot") is False else "zero-shot or not is unknown"
    return f"{status}: {run.get('zero_shot_why') or 'nobody says'}"


def identical(one: ClassificationResult | RetrievalResult, other: ClassificationResult | RetrievalResult) -> bool:
    """Whether the two found the same, bit for bit; when, where and how fast they ran does not matter."""
    if type(one) is not type(other):
        return False
    (our_table, ours), (their_table, theirs) = _split(one), _split(other)
    for table in (our_table, their_table):
        table |= {"run": None, "seconds": None}
    return our_table == their_table and _bits(ours) == _bits(theirs)


def save_result(scores: ClassificationResult | RetrievalResult, folder: str | Path) -> Path:
    """Write the result folder in one step, over an older one of that name; ResultError when it cannot be written."""
    folder = Path(folder)
    table, arrays = _split(scores)
    read_run(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        tidy(folder)
        with atomic_folder(folder) as part:
            np.savez(part / _ARRAYS, **arrays)  # type: ignore[arg-type]
            text = json.dumps(table, indent=1, ensure_ascii=False, allow_nan=False)
            (part / _JSON).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ResultError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


def read_run(folder: Path) -> Mapping[str, Any] | None:
    """The `run` of the result in a folder, {} of one that is damaged; None when the place is free.

    ResultError when it holds something else, which no result may take the place of.
    """
    try:
        if not folder.exists() or not any(folder.iterdir()):
            return None
        table = json.loads((folder / _JSON).read_text(encoding="utf-8"))
        run = aliases.rename(table, "result", quiet=True)["run"]
    except (FileNotFoundError, NotADirectoryError):
        raise ResultError(f"{folder} is there and holds no result; name another place with --out") from None
    except OSError as error:
        raise ResultError(f"{folder} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError):
        return {}
    return run if isinstance(run, dict) else {}


def load_result(folder: str | Path) -> ClassificationResult | RetrievalResult:
    """The result in a folder; ResultError says why there is none that can be used."""
    folder = Path(folder)
    try:
        table = json.loads((folder / _JSON).read_text(encoding="utf-8"))
        with (folder / _ARRAYS).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (FileNotFoundError, NotADirectoryError):
        raise ResultError(f"{folder} holds no result: `clipact eval` writes {_JSON} and {_ARRAYS}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ResultError(f"{folder} is damaged: {error}; run `clipact eval` again") from error
    if not isinstance(table, dict) or table.get("format") != FORMAT or table.get("kind") not in _KINDS:
        seen = table.get("format") if isinstance(table, dict) else None
        raise ResultError(f"{folder / _JSON}: format is {seen!r}; this version of clipact reads format {FORMAT}")
    with suppress(KeyError, TypeError, ValueError):
        return _join(aliases.rename(table, "result"), arrays)
    raise ResultError(f"{folder} is damaged: its {_JSON} and {_ARRAYS} do not fit each other; run `clipact eval` again")


def _bits(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}


def _split(scores: ClassificationResult | RetrievalResult) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What goes into the JSON file, and the arrays."""
    table: dict[str, Any] = {
        "format": FORMAT,
        "kind": "labels" if isinstance(scores, ClassificationResult) else "retrieval",
    }
    arrays: dict[str, np.ndarray] = {}
    for one in fields(scores):
        value = getattr(scores, one.name)
        if isinstance(value, np.ndarray):
            arrays[one.name] = value
        elif one.name == "parts":
            table["parts"] = list(value)
            arrays |= {f"part_{number}": rows for number, rows in enumerate(value.values())}
        elif value is not None:
            table[one.name] = dict(value) if isinstance(value, Mapping) else value
    return table, arrays


def _join(table: dict[str, Any], arrays: dict[str, np.ndarray]) -> ClassificationResult | RetrievalResult:
    kind = ClassificationResult if table["kind"] == "labels" else RetrievalResult
    values: dict[str, Any] = dict(arrays)
    for one in fields(kind):
        if one.name == "parts":
            values["parts"] = {name: values.pop(f"part_{number}") for number, name in enumerate(table["parts"])}
        elif one.name == "unreadable":
            values["unreadable"] = tuple((name, cause) for name, cause in table["unreadable"])
        elif one.name in table:
            value = table[one.name]
            values[one.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
