"""Check of training data: the table, the files that it names, and duplicates among them.

An error is what training would stumble over; a warning is what a person should know and training would not notice, such
as a picture that is in two splits under two names, or nearly one that a protocol evaluates on.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from clipact.clip_spec import ClipSpec
from clipact.data.fingerprint import Fingerprint, file_digest, near_pairs, take_fingerprint, take_fingerprints
from clipact.data.manifest import Manifest, ManifestSample, scan_manifest
from clipact.data.protocol import Protocol
from clipact.data.protocol_lists import distinct_samples, read_lists
from clipact.errors import DataError, VideoError
from clipact.progress import ProgressBar, no_progress
from clipact.video.load import load_clips


@dataclass(frozen=True, kw_only=True)
class HeldOutFile:
    """A file that a protocol evaluates on; `name` is its place below the protocol's root."""

    protocol: str
    name: str
    fingerprint: Fingerprint


@dataclass(frozen=True, kw_only=True)
class NearDuplicate:
    """A file, by its row, that is `of` or nearly so: `apart` of the 64 bits of their difference hashes differ."""

    row: int
    of: HeldOutFile
    apart: int
    same_bytes: bool


def read_held_out(protocol: Protocol, data: Path, *, progress: ProgressBar = no_progress) -> list[HeldOutFile]:
    """Return all files that the protocol evaluates on, below the folder `data`; DataError when one is missing."""
    lists = read_lists(protocol, data)
    names = list(dict.fromkeys(sample.path for sample in distinct_samples(lists)))
    taken = take_fingerprints([data / protocol.data.root / name for name in names])
    prints = progress(taken, len(names), "reading")
    held = [
        HeldOutFile(protocol=protocol.name, name=name, fingerprint=one) for name, one in zip(names, prints, strict=True)
    ]
    wrong = [cause for one in lists for cause in one.wrong]
    if missing := [one.name for one in held if not one.fingerprint.sha256]:
        wrong.append(f"{len(missing):,} of {len(held):,} files cannot be read, {missing[0]} among them")
    if wrong:
        raise DataError(f"the data in {data} are not those of protocol {protocol.name}: {'; '.join(wrong)}")
    return held


def find_near_duplicates(prints: Sequence[Fingerprint], held: Sequence[HeldOutFile]) -> list[NearDuplicate]:
    """Of each row and protocol the nearest file, where the two are the same or near each other; by row."""
    by_bytes: dict[str, list[HeldOutFile]] = {}
    for one in held:
        by_bytes.setdefault(one.fingerprint.sha256, []).append(one)
    copies = [
        NearDuplicate(row=row, of=one, apart=0, same_bytes=True)
        for row, taken in enumerate(prints)
        for one in by_bytes.get(taken.sha256, ())
    ]
    (rows, ours), (others, theirs) = _pictures(prints), _pictures(one.fingerprint for one in held)
    copies += [
        NearDuplicate(row=rows[row], of=held[others[other]], apart=apart, same_bytes=False)
        for row, other, apart in near_pairs(ours, theirs)
    ]
    nearest: dict[tuple[int, str], NearDuplicate] = {}
    for copy in sorted(copies, key=lambda copy: (copy.row, not copy.same_bytes, copy.apart)):
        nearest.setdefault((copy.row, copy.of.protocol), copy)
    return list(nearest.values())


def _pictures(prints: Iterable[Fingerprint]) -> tuple[list[int], np.ndarray]:
    """The rows that are pictures, and their difference hashes, eight bytes each."""
    hashes = {row: one.difference_hash for row, one in enumerate(prints) if one.difference_hash}
    table = np.frombuffer(bytes.fromhex("".join(hashes.values())), np.uint8).reshape(-1, 8)
    return list(hashes), table


@dataclass(frozen=True, kw_only=True)
class DataIssue:
    """Something that is wrong, in which line of the manifest, with which file ("" when the line names none)."""

    kind: Literal["error", "warning"]
    line: int
    path: str
    cause: str


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What a manifest holds and all that is wrong with it, in the order of its lines."""

    manifest: Manifest
    findings: tuple[DataIssue, ...]

    @property
    def errors(self) -> int:
        """How many of the findings are errors."""
        return sum(finding.kind == "error" for finding in self.findings)

    @property
    def splits(self) -> dict[str, int]:
        """Samples of each split, as far as their lines could be read."""
        return dict(Counter(sample.split for sample in self.manifest.samples))

    @property
    def labels(self) -> dict[str, int]:
        """Samples of each label, most first."""
        named = (sample.label for sample in self.manifest.samples if sample.label is not None)
        return dict(Counter(named).most_common())

    @property
    def captions(self) -> int:
        """Captions in all; the same twice for one sample counts once."""
        return sum(len(sample.captions) for sample in self.manifest.samples)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    sample: ManifestSample
    fingerprint: Fingerprint
    findings: tuple[DataIssue, ...]


def check_manifest(
    source: str | Path,
    root: str | Path | None = None,
    *,
    split: str = "all",
    frames: int = 8,
    against: Sequence[HeldOutFile] = (),
    progress: ProgressBar = no_progress,
) -> DataReport:
    """The report on a manifest whose paths start from `root`, by default its own folder, and its samples of `split`.

    Of every sample `frames` frames are decoded, spread from its first to its last, and its file is compared with those
    of `against`. ManifestError when the file is no table at all, or has no such split.
    """
    manifest, wrong = scan_manifest(source, root)
    if split != "all":
        manifest = replace(manifest, samples=manifest.of_split(split))
    spec = ClipSpec(frames=frames, sampling="uniform", size=(32, 32), interpolation="nearest")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(
            lambda sample: _read_sample(manifest.root / sample.path, sample, spec, hash_pictures=bool(against)),
            manifest.samples,
        )
        seen = list(progress(results, len(manifest.samples), "reading"))
    findings = [DataIssue(kind="error", line=error.line or 0, path="", cause=error.cause) for error in wrong]
    findings += [
        DataIssue(kind="warning", line=line, path="", cause="it says again what a line before it says; it counts once")
        for line in manifest.repeats
    ]
    findings += [finding for one in seen for finding in one.findings]
    findings += _same_bytes(seen)
    findings += _held_out(seen, against)
    return DataReport(
        manifest=manifest, findings=tuple(sorted(findings, key=lambda finding: (finding.line, finding.path)))
    )


def _read_sample(path: Path, sample: ManifestSample, spec: ClipSpec, *, hash_pictures: bool) -> _Seen:
    """What is in a file; its difference hash, for which a picture is decoded again, where `hash_pictures` is set."""
    start, end = sample.start_seconds, sample.end_seconds
    try:
        (clip,) = load_clips(path, spec, start_seconds=start, end_seconds=end)
    except VideoError as error:
        unreadable = DataIssue(kind="error", line=sample.line, path=sample.path, cause=error.cause)
        return _Seen(sample=sample, fingerprint=Fingerprint(sha256="", difference_hash=""), findings=(unreadable,))
    # That a picture's only frame repeats is as it should be.
    notes = () if len(set(clip.stamps)) == 1 else clip.notes
    findings = (DataIssue(kind="warning", line=sample.line, path=sample.path, cause=note) for note in notes)
    taken = take_fingerprint(path) if hash_pictures else Fingerprint(sha256=file_digest(path), difference_hash="")
    return _Seen(sample=sample, fingerprint=taken, findings=tuple(findings))


def _same_bytes(seen: Iterable[_Seen]) -> Iterator[DataIssue]:
    """A warning for every file that has, under another name, another split or another label."""
    first: dict[tuple[str, float | None, float | None], ManifestSample] = {}
    for one in seen:
        if not one.fingerprint.sha256:
            continue
        now = one.sample
        before = first.setdefault((one.fingerprint.sha256, now.start_seconds, now.end_seconds), now)
        for name in ("split", "label"):
            ours, theirs = getattr(now, name), getattr(before, name)
            if ours != theirs:
                cause = (
                    f"its {name} is {ours!r}, but {before.path} in line {before.line}, the same file, has {theirs!r}"
                )
                yield DataIssue(kind="warning", line=now.line, path=now.path, cause=cause)


def _held_out(seen: Sequence[_Seen], against: Sequence[HeldOutFile]) -> Iterator[DataIssue]:
    """A warning for every file that is one of `against`, or nearly."""
    for copy in find_near_duplicates([one.fingerprint for one in seen], against):
        which, sample = f"{copy.of.name}, which protocol {copy.of.protocol} evaluates on", seen[copy.row].sample
        cause = f"it is {which}" if copy.same_bytes else f"it is nearly {which}: {copy.apart} of 64 bits differ"
        yield DataIssue(kind="warning", line=sample.line, path=sample.path, cause=cause)
