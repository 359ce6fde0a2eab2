"""Answers as rows of a file: JSON lines, CSV or Parquet, by the file's ending.

A file is there when all answers are in it, and not before.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clipact.atomic_write import atomic_path, tidy
from clipact.classify.prediction import Prediction
from clipact.embed.feature_row import as_text
from clipact.errors import UsageError, VideoError, choices, import_library

Row = Mapping[str, Any]
Write = Callable[[Row], None]

_ROWS_A_GROUP = 4096


def answer_row(source: str, answer: Prediction | VideoError, *, model: str, prompts: str, top: int) -> dict[str, Any]:
    """Return an answer as JSON has it, with its `top` best labels; for a video that cannot be read, the error."""
    known = None if isinstance(answer, VideoError) else answer
    row: dict[str, Any] = {
        "video": source,
        "model": model,
        "prompts": known.prompts if known else prompts,
        "duration_seconds": known and known.duration_seconds,
        "decoder": known and known.decoder,
        "frames": [{"index": s.index, "seconds": s.seconds} for s in known.frames] if known else [],
        "predictions": [{"label": e.label, "score": e.score} for e in known.top(top)] if known else [],
        "notes": list(known.notes) if known else [],
        "error": {"type": type(answer).__name__, "message": str(answer)} if isinstance(answer, VideoError) else None,
    }
    for name in ("outside", "agreement", "trust", "accepted"):
        if known and (said := getattr(known, name)) is not None:
            row[name] = list(said) if isinstance(said, tuple) else asdict(said)
    return row


@contextmanager
def answer_writer(path: Path, *, top: int) -> Iterator[Write]:
    """Give what writes one row of `answer_row` after the other to a file.

    Args:
        path: Ends in .jsonl (or .json), .csv or .parquet.
        top: How many labels a row has, which is how many columns CSV has for them.

    Raises:
        UsageError: The ending is another one, or the folder cannot be written.
        MissingLibraryError: Parquet without pyarrow.
    """
    writer = check_answer_file(path)
    try:
        tidy(path)
        with atomic_path(path) as part, writer(part, top) as write:
            yield write
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror or error}; name another file with --out"
        ) from error


def check_answer_file(path: Path) -> Callable[[Path, int], Any]:
    """Return what writes a file of this ending; errors as for `answer_writer`."""
    kind = path.suffix.lower()
    if kind not in _WRITERS:
        raise UsageError(
            f"{path} has the ending {kind or 'of no file'!r}; answers have one of: {choices(kind, _WRITERS)}"
        )
    if kind == ".parquet":
        import_library("pyarrow")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file with --out")
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} is not there; make it, or name another file with --out")
    return _WRITERS[kind]


@contextmanager
def _json_lines(path: Path, top: int) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda row: print(json.dumps(row), file=file)


@contextmanager
def _csv(path: Path, top: int) -> Iterator[Write]:
    ranks = range(1, top + 1)
    names = ["video", "model", "prompts", "duration_seconds"]
    names += [name for rank in ranks for name in (f"label_{rank}", f"score_{rank}")]
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*names, "none_of_these", "error"])

        def write(row: Row) -> None:
            flat = _flat(row)
            best = [part for pair in zip(flat["labels"], flat["scores"], strict=True) for part in pair]
            best += [""] * (2 * top - len(best))
            told = ["" if flat[name] is None else flat[name] for name in names[:4]]
            table.writerow(
                [*told, *best, "" if flat["none_of_these"] is None else flat["none_of_these"], flat["error"]]
            )

        yield write


@contextmanager
def _parquet(path: Path, top: int) -> Iterator[Write]:
    arrow, parquet = import_library("pyarrow"), import_library("pyarrow.parquet")
    text = arrow.string()
    schema = arrow.schema(
        {
            "video": text,
            "model": text,
            "prompts": text,
            "duration_seconds": arrow.float64(),
            "labels": arrow.list_(text),
            "scores": arrow.list_(arrow.float32()),
            "none_of_these": arrow.bool_(),
            "notes": arrow.list_(text),
            "error": text,
        }
    )
    waiting: list[dict[str, Any]] = []
    with parquet.ParquetWriter(path, schema, compression="zstd") as file:

        def flush() -> None:
            if waiting:
                file.write_table(arrow.Table.from_pylist(waiting, schema=schema))
                waiting.clear()

        def write(row: Row) -> None:
            waiting.append(_flat(row) | {"error": _flat(row)["error"] or None})
            if len(waiting) == _ROWS_A_GROUP:
                flush()

        yield write
        flush()


def _flat(row: Row) -> dict[str, Any]:
    """The columns that tables have of a row."""
    none = row["trust"]["none_of_these"] if "trust" in row else None
    if "accepted" in row:
        none = not row["accepted"]
    return {
        "video": as_text(row["video"]),
        "model": row["model"],
        "prompts": row["prompts"],
        "duration_seconds": row["duration_seconds"],
        "labels": [one["label"] for one in row["predictions"]],
        "scores": [one["score"] for one in row["predictions"]],
        "none_of_these": none,
        "notes": row["notes"],
        "error": as_text(row["error"]["message"]) if row["error"] else "",
    }


_WRITERS: dict[str, Callable[[Path, int], Any]] = {
    ".jsonl": _json_lines,
    ".json": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
