"""What a model's weights saw, written down beside it: every file, where it comes from, and what is in it."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import astuple, fields
from pathlib import Path

from clipact.data.fingerprint import take_fingerprints
from clipact.data.sources import Entry
from clipact.model_config import FileSeen


def files_seen(entries: Iterable[Entry], *, before: Mapping[str, FileSeen] | None = None) -> str:
    """A CSV table of the files of the entries, as `clipact.model_config.read_files_seen` reads it.

    `before` are those that the weights had seen when the run began, by their sha256; no content is listed twice.
    """
    files, seen = {entry.path: entry for entry in entries}, dict(before or {})
    prints = take_fingerprints([Path(path) for path in files])
    for entry, taken in zip(files.values(), prints, strict=True):
        seen.setdefault(
            taken.sha256,
            FileSeen(path=entry.file, source=entry.source, sha256=taken.sha256, difference_hash=taken.difference_hash),
        )
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([field.name for field in fields(FileSeen)])
    table.writerows(astuple(one) for one in seen.values())
    return text.getvalue()
