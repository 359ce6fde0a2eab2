"""A protocol's lists of files below a data folder: to evaluate on the protocol's own split, or to learn from another.

Lists are read and hashed, and what is not as the protocol says is written down; no media file is opened.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clipact.data.fingerprint import file_digest
from clipact.data.manifest import Manifest, ManifestSample, read_manifest
from clipact.data.protocol import Protocol, ProtocolPart
from clipact.errors import ManifestError, choices
from clipact.prompts import LabelSet


@dataclass(frozen=True, kw_only=True)
class ProtocolList:
    """One part of a protocol.

    manifest  the whole list, whose paths start from the protocol's root
    samples   those of the split
    sha256    of the list's bytes
    wrong     how it is not the protocol's
    """

    part: ProtocolPart
    manifest: Manifest
    samples: tuple[ManifestSample, ...]
    sha256: str
    wrong: tuple[str, ...]


def list_paths(protocol: Protocol, data: Path) -> Iterator[tuple[ProtocolPart, Path, Path]]:
    """Each part, its list and the folder that its paths start from."""
    for part in protocol.data.parts:
        yield part, protocol.folder / part.list if part.list else data / part.manifest, data / protocol.data.root


def read_lists(protocol: Protocol, data: Path, *, split: str | None = None) -> list[ProtocolList]:
    """The protocol's lists, in order, with their samples of `split`, by default the protocol's own."""
    found = []
    for part, path, root in list_paths(protocol, data):
        manifest = read_manifest(path, root, group_column=protocol.data.group)
        samples = manifest.of_split(split or protocol.data.split)
        digest, wrong = file_digest(path), []
        if part.sha256 and part.sha256 != digest:
            wrong.append(f"{path.name} has the sha256 {digest[:12]}…, the protocol says {part.sha256[:12]}…")
        if split in (None, protocol.data.split) and part.count is not None and part.count != len(samples):
            wrong.append(f"{path.name} has {len(samples):,} samples, the protocol says {part.count:,}")
        found.append(ProtocolList(part=part, manifest=manifest, samples=samples, sha256=digest, wrong=tuple(wrong)))
    return found


def distinct_samples(lists: Iterable[ProtocolList]) -> tuple[ManifestSample, ...]:
    """The samples of all lists, each once, in the order in which they first stand there."""
    found: dict[str, ManifestSample] = {}
    for one in lists:
        for sample in one.samples:
            found.setdefault(sample.name, sample)
    return tuple(found.values())


def protocol_labels(protocol: Protocol, lists: Sequence[ProtocolList]) -> LabelSet:
    """What is chosen from under the protocol, and how it is written; ManifestError for a label that is not among it.

    Where the protocol names no labels they are those of its whole lists, whichever split is evaluated.
    """
    there = {label for one in lists for sample in one.manifest.samples for label in sample.labels}
    words = protocol.words
    labels = LabelSet.load(words.set) if words.set else LabelSet.of(words.names or sorted(there), name=protocol.name)
    if words.verbatim:
        labels = replace(labels, phrases=labels.labels)
    for one in lists:
        refuse_unknown(one.manifest, one.samples, labels, of=f"protocol {protocol.name}")
    return labels


def refuse_unknown(manifest: Manifest, samples: Iterable[ManifestSample], labels: LabelSet, *, of: str) -> None:
    """Nothing; ManifestError for a sample whose label is none of the set's."""
    known = set(labels.labels)
    for sample in samples:
        if unknown := [label for label in sample.labels if label not in known]:
            raise ManifestError(
                manifest.source,
                sample.line,
                f"label {unknown[0]!r} is none of {of}'s; {choices(unknown[0], labels.labels)}",
            )
