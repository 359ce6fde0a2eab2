"""Read the entries of an index from a source, and encode them as sentences.

A source is a shipped label set, a file of one label a line, a CSV table or a file of JSON lines, or "-" for lines on
standard input. It is read as it is asked for, never whole; every text passes `clean`. Labels go into templates;
captions are sentences already.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
from einops import rearrange
from jaxtyping import Float32

from clipact.cache import content_key
from clipact.engines.engine import Engine
from clipact.engines.vectors import unit
from clipact.errors import LabelError, ManifestError
from clipact.label_index import IndexEntry
from clipact.prompts import LabelSet, PromptSet, clean
from clipact.prompts.english import phrase, split_words
from clipact.prompts.label_set import set_names

TEXTS = ("label", "caption", "text")
NO_PROMPTS = "none"


@dataclass(frozen=True, kw_only=True)
class EntrySource:
    """Entries as they come.

    captions        whether they are sentences, to be taken as they are
    phrases         of labels whose phrase a label set gives
    has_more_words  whether the label set has synonyms or descriptions, too
    """

    entries: Iterator[IndexEntry]
    captions: bool = False
    phrases: Mapping[str, str] = field(default_factory=dict)
    has_more_words: bool = False


def read_entries(source: str) -> EntrySource:
    """The entries of one source (see above).

    A table has a column `label`, `caption` or `text`, and may have `id`; its other columns are kept as metadata.
    Without an id the text is its own. LabelError or ManifestError for what cannot be read, when it is reached.
    """
    if source.partition(":")[0] in set_names("labels"):
        return _of_set(LabelSet.load(source))
    if source == "-":
        return EntrySource(entries=_lines(sys.stdin, "standard input"))
    path = Path(source.removeprefix("@")).expanduser()
    if path.suffix == ".toml" or not path.is_file():  # a part of a set's file, or an error that says which sets are
        return _of_set(LabelSet.load(source.removeprefix("@")))
    readers: dict[str, Callable[[IO[str], str], Iterator[IndexEntry]]] = {
        ".csv": _table, ".jsonl": _json_lines, ".ndjson": _json_lines
    }  # fmt: skip
    reader = readers.get(path.suffix.lower(), _lines)
    entries = _opened(path, reader)
    if reader is _lines:
        return EntrySource(entries=entries)
    first = next(entries, None)
    if first is None:
        raise ManifestError(path, None, "it has no entries")
    return EntrySource(entries=chain([first], entries), captions=_column(path, reader) == "caption")


def sentence_encoder(
    model: Engine, vocabulary: EntrySource, prompts: PromptSet | None
) -> Callable[[Sequence[IndexEntry]], Float32[np.ndarray, "n d"]]:
    """What gives entries their unit vectors: the mean over the templates, or with no prompts the text itself.

    Of prompts that say more of a label than its phrase, the phrase alone is said. LabelError when they give it more
    than one vector, ModelError when texts depend on the clip.
    """
    if model.text_depends_on_video:
        raise model.text_needs_video()
    prompts = prompts and _phrase_alone(prompts)

    def written(text: str) -> str:
        names = "phrases" if prompts is None else prompts.wording.names
        if names == "phrases":
            return vocabulary.phrases.get(text) or phrase(text)
        return text if names == "verbatim" else " ".join(split_words(text))

    def encode(entries: Sequence[IndexEntry]) -> Float32[np.ndarray, "n d"]:
        if prompts is None:
            return model.encode_text([entry.text for entry in entries])
        filled = [one.fill(written(entry.text)) for entry in entries for one in prompts.templates]
        place = {sentence: row for row, sentence in enumerate(dict.fromkeys(filled))}
        each = model.encode_text(list(place))[[place[sentence] for sentence in filled]]
        return unit(rearrange(each, "(n p) d -> n p d", n=len(entries)).mean(1))

    return encode


def describe_wording(prompts: PromptSet | None) -> str:
    """What is kept with an index to say how its texts were worded: the prompts' name and a hash of what is indexed."""
    if prompts is None:
        return NO_PROMPTS
    said = _phrase_alone(prompts)
    return f"{said.name} {content_key(repr(said.wording), *(one.text for one in said.templates))[:16]}"


def _phrase_alone(prompts: PromptSet) -> PromptSet:
    """What an index can hold of a prompt set: one vector a label, of its phrase."""
    if prompts.wording.over_templates != "embeddings" or "phrase" not in prompts.wording.words:
        raise LabelError(
            f"an index holds one vector a label, of its phrase; the prompts {prompts.name!r} ask for another: "
            'over_templates = "embeddings" and words = ["phrase"] can be indexed'
        )
    return replace(prompts, wording=replace(prompts.wording, words=("phrase",), over_words="mean"))


def _of_set(labels: LabelSet) -> EntrySource:
    return EntrySource(
        entries=(IndexEntry(id=label, text=label) for label in labels.labels),
        phrases=dict(zip(labels.labels, labels.phrases, strict=True)),
        has_more_words=any(about.synonyms or about.descriptions for about in labels.about.values()),
    )


def _opened(path: Path, reader: Callable[[IO[str], str], Iterator[IndexEntry]]) -> Iterator[IndexEntry]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from reader(file, str(path))
    except OSError as error:
        raise LabelError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise LabelError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error


def _column(path: Path, reader: Callable[[IO[str], str], Iterator[IndexEntry]]) -> str:
    """The name under which a table has its texts."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        if reader is _table:
            return _text_column(next(csv.reader(file)), str(path))
        return _text_column(list(json.loads(file.readline())), str(path))


def _text_column(names: Sequence[str], where: str) -> str:
    there = [name for name in TEXTS if name in names]
    if len(there) != 1:
        raise ManifestError(where, 1, f"it has {', '.join(map(repr, names))}; one of {', '.join(TEXTS)} is needed")
    return there[0]


def _lines(file: IO[str], where: str) -> Iterator[IndexEntry]:
    for number, line in enumerate(file, 1):
        if line.strip() and not line.startswith("#"):
            text = _clean(line, where, number)
            yield IndexEntry(id=text, text=text)


def _table(file: IO[str], where: str) -> Iterator[IndexEntry]:
    rows = csv.DictReader(file, strict=True)
    try:
        column = _text_column(rows.fieldnames or (), where)
        for row in rows:
            if None in row or None in row.values():
                raise ManifestError(where, rows.line_num, f"it has not the {len(rows.fieldnames or ())} columns above")
            yield _entry(row, column, where, rows.line_num)
    except csv.Error as error:
        raise ManifestError(where, rows.line_num, f"not CSV: {error}") from error


def _json_lines(file: IO[str], where: str) -> Iterator[IndexEntry]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ManifestError(where, number, f"not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ManifestError(where, number, f"a JSON object is needed, here is {type(row).__name__}")
        yield _entry(row, _text_column(list(row), where), where, number)


def _entry(row: Mapping[str, Any], column: str, where: str, line: int) -> IndexEntry:
    if not isinstance(row[column], str) or not isinstance(row.get("id", ""), (str, int)):
        raise ManifestError(where, line, f"{column} and id are text")
    text = _clean(row[column], where, line)
    metadata = {name: value for name, value in row.items() if name not in ("id", column)}
    return IndexEntry(id=str(row.get("id", "")) or text, text=text, metadata=metadata)


def _clean(text: str, where: str, line: int) -> str:
    try:
        return clean(text)
    except LabelError as error:
        raise ManifestError(where, line, str(error)) from error
