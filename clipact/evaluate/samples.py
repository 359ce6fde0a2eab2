"""Samples of an evaluation, from a protocol or a table: files, their labels, and whether they are the right ones.

Lists are read and hashed here; media files are looked for, and hashed when the protocol says what must come out.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clipact.data.fingerprint import file_digest
from clipact.data.manifest import ManifestSample, read_manifest
from clipact.data.protocol import Protocol, ProtocolData, ProtocolPart
from clipact.data.protocol_lists import distinct_samples, protocol_labels, read_lists
from clipact.errors import DataError, UsageError
from clipact.prompts import LabelSet

_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class EvalSample:
    """One sample: `name` below the data folder, where the file is, what is true of it.

    texts         captions that belong to it; empty when it has a label
    extra_labels  other labels that are true of it
    group         a person, a film: its samples are not independent of each other; "" for the file
    file          the path below the protocol's root, the same wherever the data lie; "" where there is none
    """

    name: str
    path: Path
    label: str | None = None
    texts: tuple[str, ...] = ()
    extra_labels: tuple[str, ...] = ()
    group: str = ""
    file: str = ""
    start_seconds: float | None = None
    end_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class EvalSamples:
    """All samples of an evaluation.

    labels       what is chosen from; None for retrieval
    parts        rows of each part, by name; empty when there is one
    data         what goes into a result's run["data"]
    partial_why  how they are fewer or others than the protocol's
    """

    items: tuple[EvalSample, ...]
    labels: LabelSet | None
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)
    data: Mapping[str, object] = field(default_factory=dict)
    partial_why: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of each sample: the one that it states, else its file, of which others may be stretches."""
        return tuple(item.group or item.file or str(item.path) for item in self.items)


def manifest_protocol(manifest: str | Path, *, split: str = "all") -> Protocol:
    """A protocol for a table of one's own: its labels, or its captions, with the usual prompts.

    The table may lie anywhere: the data folder is where its paths start. It is of no data set that has a name. Rows
    with the same value in a column `group` (a person, a film) are one group; without one, the rows of a file are.
    """
    path = Path(manifest).expanduser()
    table = read_manifest(path)
    captions = any(sample.captions for sample in table.samples)
    return Protocol(
        name=path.stem if split == "all" else f"{path.stem}--{split}",
        title=f"the table {path.name}" if split == "all" else f"the table {path.name}, {split} split",
        metric="retrieval" if captions else "top_1",
        source=str(path),
        data=ProtocolData(
            set="",
            parts=(ProtocolPart(list=path.name),),
            split=split,
            group="group" if "group" in table.ignored else "",
        ),
        folder=path.parent,
    )


def read_samples(protocol: Protocol, data: str | Path, *, allow_mismatch: bool = False) -> EvalSamples:
    """The samples that the protocol names, below the folder `data`.

    DataError when a list, a count or a file is not as the protocol says; with `allow_mismatch` it is recorded.
    """
    folder = Path(data).expanduser()
    if not folder.is_dir():
        raise UsageError(
            f"the data folder {folder} is not there; name with --data the one that protocol {protocol.name} is for"
        )
    lists = read_lists(protocol, folder)
    mismatches = [cause for one in lists for cause in one.wrong]
    items = [_item(protocol, sample, folder) for sample in distinct_samples(lists)]
    rows = {item.name: row for row, item in enumerate(items)}
    members = [np.array([rows[sample.name] for sample in one.samples], dtype=np.int64) for one in lists]
    labels = None if protocol.retrieval else protocol_labels(protocol, lists)
    if protocol.data.count is not None and protocol.data.count != len(items):
        mismatches.append(f"{len(items):,} samples, where the protocol says {protocol.data.count:,}")
    _check_files(protocol, items, mismatches)
    if mismatches and not allow_mismatch:
        raise DataError(
            f"the data in {folder} are not those of protocol {protocol.name}: {'; '.join(mismatches)}. "
            "--allow-mismatch goes on, and marks the result"
        )
    return EvalSamples(
        items=tuple(items),
        labels=labels,
        parts={part.name: own for part, own in zip(protocol.data.parts, members, strict=True)}
        if len(lists) > 1
        else {},
        data={
            "set": protocol.data.set,
            "aliases": list(protocol.data.aliases),
            "root": protocol.data.root,
            "source": protocol.source,
            "split": protocol.data.split,
            "lists": [{"name": one.part.list or one.part.manifest, "sha256": one.sha256} for one in lists],
            "list_sha256": hashlib.sha256("".join(one.sha256 for one in lists).encode()).hexdigest(),
            "count": len(items),
        },
        partial_why=tuple(mismatches),
    )


def as_samples(samples: EvalSamples | Sequence[EvalSample]) -> EvalSamples:
    """Make a list of samples one of no protocol."""
    return samples if isinstance(samples, EvalSamples) else EvalSamples(items=tuple(samples), labels=None)


def files_digest(names: Sequence[str], digests: Mapping[str, str]) -> str:
    """What a protocol calls files_sha256: of the lines "name sha256", with "-" for a file that could not be read."""
    lines = "".join(f"{name} {digests.get(name) or '-'}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def _item(protocol: Protocol, sample: ManifestSample, folder: Path) -> EvalSample:
    group = sample.group
    if protocol.data.group_pattern:
        found = re.search(protocol.data.group_pattern, sample.path)
        if found is None:
            raise DataError(
                f"protocol {protocol.name}: data.group_pattern {protocol.data.group_pattern!r} matches no part of "
                f"{sample.name}"
            )
        group = found["group" if "group" in found.re.groupindex else 1]
    return EvalSample(
        name=sample.name,
        path=folder / protocol.data.root / sample.path,
        label=sample.label,
        texts=sample.captions,
        extra_labels=sample.extra_labels,
        group=group,
        file=sample.path,
        start_seconds=sample.start_seconds,
        end_seconds=sample.end_seconds,
    )


def _check_files(protocol: Protocol, items: Sequence[EvalSample], mismatches: list[str]) -> None:
    """Add the mismatches: files that are missing or, where the protocol says what they are, others."""
    missing = [item.name for item in items if not item.path.is_file()]
    if missing:
        more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
        mismatches.append(f"{len(missing):,} of {len(items):,} files are missing: {', '.join(missing[:_NAMED])}{more}")
    if not protocol.data.files_sha256 or missing:
        return
    with ThreadPoolExecutor() as pool:
        digests = dict(zip((item.name for item in items), pool.map(lambda i: file_digest(i.path), items), strict=True))
    whole = files_digest([item.name for item in items], digests)
    if whole != protocol.data.files_sha256:
        mismatches.append(
            f"the files together have the sha256 {whole[:12]}…, the protocol says {protocol.data.files_sha256[:12]}…"
        )
