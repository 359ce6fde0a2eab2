"""Check of training data: the table, the files that it names, and duplicates among them.

An error is what training would stumble over; a warning is what a person should know and training would not notice, such
as a picture that is in two splits under two names, or nearly one that a protocol evaluates on. A table is gone through
row by row: of a row that was looked at, 100 bytes and its path are kept.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from clipact.clip_spec import ClipSpec
from clipact.data.compact_columns import DigestNumbers, TextColumn
from clipact.data.fingerprint import Fingerprint, file_digest, take_fingerprint
from clipact.data.first_lines import FirstLines, Said
from clipact.data.held_out import HeldOutFile, find_near_duplicates
from clipact.data.manifest import ManifestLine, ManifestSample, count_rows, no_such_split, open_manifest
from clipact.errors import ManifestError, VideoError
from clipact.progress import ProgressBar, no_progress
from clipact.prompts.english import phrase
from clipact.video.load import load_clips
from clipact.work_ahead import work_ahead

_AHEAD = 8  # rows a thread that are looked at before they are asked for
_TOGETHER = 256  # rows that are compared with the files of protocols at a time: one matrix product


@dataclass(frozen=True, kw_only=True)
class DataIssue:
    """Something that is wrong, in which line of the manifest, with which file ("" when the line names none)."""

    kind: Literal["error", "warning"]
    line: int
    path: str
    cause: str


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What a manifest holds, as far as its lines could be read, and what is wrong with it.

    source            the CSV file
    samples           of the split that was looked at; all other numbers are of these, too
    captions          the same twice for one sample counts once
    shared_captions   those of them that another sample before has, too
    splits            samples of each split
    labels            samples of each label, most first
    ignored           columns that are not ours
    errors, warnings  how many there are
    findings          those that were kept, in the order of lines
    """

    source: Path
    samples: int
    captions: int
    shared_captions: int
    splits: dict[str, int]
    labels: dict[str, int]
    ignored: tuple[str, ...]
    errors: int
    warnings: int
    findings: tuple[DataIssue, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """A row; of the first of a sample also its file's fingerprint, None when it cannot be read, and what is wrong."""

    row: ManifestLine | ManifestError
    fingerprint: Fingerprint | None = None
    findings: tuple[DataIssue, ...] = ()


def check_manifest(
    source: str | Path,
    root: str | Path | None = None,
    *,
    split: str = "all",
    frames: int = 8,
    against: Sequence[HeldOutFile] = (),
    progress: ProgressBar = no_progress,
) -> DataReport:
    """Check a manifest and the files that it names, and report all that is wrong; as `DataCheck`, which has the rest.

    Raises:
        ManifestError: The file is no table at all, or has no such split.
    """
    check = DataCheck(source, root, split=split, frames=frames, against=against)
    return check.report(tuple(check.findings(progress=progress)))


class DataCheck:
    """One pass over a manifest that finds what is wrong, while memory stays in bounds.

    source   the CSV file
    root     the folder that its paths start from, by default its own
    split    which of its samples are looked at, or "all"
    frames   decoded of each sample, spread from its first to its last
    against  files that protocols evaluate on, which those of the manifest are compared with
    """

    def __init__(
        self,
        source: str | Path,
        root: str | Path | None = None,
        *,
        split: str = "all",
        frames: int = 8,
        against: Sequence[HeldOutFile] = (),
    ) -> None:
        self.source, self.split, self.against = Path(source), split, against
        self.root = self.source.parent if root is None else Path(root)
        self._spec = ClipSpec(frames=frames, sampling="uniform", size=(32, 32), interpolation="nearest")
        self._firsts, self._paths = FirstLines(), TextColumn()  # by the bytes of a file and the part of it
        self._files = FirstLines()  # by the bytes of a file
        self._there: Counter[str] = Counter()  # samples of each split of the whole table
        self._labels: Counter[str] = Counter()
        self._reads: dict[str, str] = {}  # the words of a label in a sentence -> the first label that has them
        self._kinds: Counter[str] = Counter()
        self._captions, self._distinct_captions = 0, DigestNumbers()
        self._ignored: tuple[str, ...] = ()

    def findings(self, *, progress: ProgressBar = no_progress) -> Iterator[DataIssue]:
        """Yield all that is wrong, in the order of lines; to be gone through once.

        Args:
            progress: Shows how many of the table's rows have been looked at.

        Raises:
            ManifestError: The file is no table at all, or, at the end, has no sample of the split.
        """
        rows = count_rows(self.source)
        with open_manifest(self.source, self.root) as reader:
            self._ignored = reader.ignored
            workers = os.cpu_count() or 1
            seen = work_ahead(self._look, reader.lines(), depth=_AHEAD * workers, workers=workers)
            shown = iter(progress(seen, rows, "reading"))
            while together := list(islice(shown, _TOGETHER)):
                for finding in self._compare(together):
                    self._kinds[finding.kind] += 1
                    yield finding
        if self.split not in ("all", *self._there):
            raise no_such_split(self.source, self.split, self._there)

    def report(self, findings: tuple[DataIssue, ...] = ()) -> DataReport:
        """Return what has been counted; `findings` are those that the report is to hold."""
        return DataReport(
            source=self.source,
            samples=sum(self._splits.values()),
            captions=self._captions,
            shared_captions=self._captions - len(self._distinct_captions),
            splits=self._splits,
            labels=dict(self._labels.most_common()),
            ignored=self._ignored,
            errors=self._kinds["error"],
            warnings=self._kinds["warning"],
            findings=findings,
        )

    @property
    def _splits(self) -> dict[str, int]:
        return {split: count for split, count in self._there.items() if self._takes(split)}

    def _takes(self, split: str) -> bool:
        return self.split in ("all", split)

    def _look(self, row: ManifestLine | ManifestError) -> _Seen:
        """What is in the file of a sample's first row, in a thread of its own.

        A picture is decoded again for its difference hash, where that is compared with others.
        """
        if isinstance(row, ManifestError) or not row.first or not self._takes(row.sample.split):
            return _Seen(row=row)
        sample, path = row.sample, self.root / row.sample.path
        try:
            (clip,) = load_clips(path, self._spec, start_seconds=sample.start_seconds, end_seconds=sample.end_seconds)
        except VideoError as error:
            return _Seen(row=row, findings=(_of_sample("error", sample, error.cause),))
        # That a picture's only frame repeats is as it should be.
        notes = () if len(set(clip.stamps)) == 1 else clip.notes
        taken = take_fingerprint(path) if self.against else Fingerprint(sha256=file_digest(path), difference_hash="")
        return _Seen(
            row=row,
            fingerprint=taken if taken.sha256 else None,
            findings=tuple(_of_sample("warning", sample, note) for note in notes),
        )

    def _compare(self, together: Sequence[_Seen]) -> Iterator[DataIssue]:
        """What is wrong with some rows, beside those before them and the files of protocols; the rows are counted."""
        held_out = self._held_out(together)
        for seen in together:
            row = seen.row
            if isinstance(row, ManifestError):
                yield DataIssue(kind="error", line=row.line or 0, path="", cause=row.cause)
                continue
            self._count(row)
            yield from self._same_words(row)
            if row.repeat:
                cause = "it says again what a line before it says; it counts once"
                yield DataIssue(kind="warning", line=row.sample.line, path="", cause=cause)
            yield from seen.findings
            yield from self._same_bytes(row.sample, seen.fingerprint)
            yield from held_out.get(row.number, ()) if row.first else ()

    def _count(self, row: ManifestLine) -> None:
        sample = row.sample
        if row.first:
            self._there[sample.split] += 1
        if not self._takes(sample.split):
            return
        if row.first and sample.label is not None:
            self._labels[sample.label] += 1
            self._reads.setdefault(phrase(sample.label).casefold(), sample.label)
        if not row.repeat:
            self._captions += len(sample.captions)
            for caption in sample.captions:
                self._distinct_captions.number(caption)

    def _same_words(self, row: ManifestLine) -> Iterator[DataIssue]:
        """An error where a label comes for the first time that reads in a sentence as one before."""
        label = row.sample.label
        if label is None or not row.first or not self._takes(row.sample.split) or self._labels[label] != 1:
            return
        words = phrase(label)
        if (other := self._reads[words.casefold()]) != label:
            cause = (
                f"{other!r} and {label!r} both read {words!r} in a sentence: keep one of them, or word them apart in a "
                "label set"
            )
            yield _of_sample("error", row.sample, cause)

    def _same_bytes(self, sample: ManifestSample, fingerprint: Fingerprint | None) -> Iterator[DataIssue]:
        """A warning when a sample before has, under another name, the same content in another split or label."""
        if fingerprint is None:
            return
        key = (fingerprint.sha256, sample.start_seconds, sample.end_seconds)
        said = Said(sample.split, sample.label, sample.extra_labels)
        before = self._firsts.setdefault(key, line=sample.line, said=said)
        if before.number == len(self._paths):
            self._paths.append(sample.path)
        for name in ("split", "label"):
            ours, theirs = getattr(said, name), getattr(before.said, name)
            if ours != theirs:
                path = self._paths[before.number]
                cause = f"its {name} is {ours!r}, but {path} in line {before.line}, the same file, has {theirs!r}"
                yield _of_sample("warning", sample, cause)
        first = self._files.setdefault((fingerprint.sha256,), line=sample.line, said=said)
        if said.split != first.said.split and first.line != before.line:
            cause = (
                f"its split is {said.split!r}, but line {first.line}, another part of the same file, has "
                f"{first.said.split!r}: parts of one video look alike, so keep them in one split"
            )
            yield _of_sample("warning", sample, cause)

    def _held_out(self, together: Sequence[_Seen]) -> dict[int, list[DataIssue]]:
        """A warning for every sample, by its number, whose file is one of `against`, or nearly."""
        if not self.against:
            return {}
        read = [(seen.row, seen.fingerprint) for seen in together if seen.fingerprint is not None]
        found: dict[int, list[DataIssue]] = {}
        for copy in find_near_duplicates([fingerprint for _, fingerprint in read], self.against):
            which, row = f"{copy.of.name}, which protocol {copy.of.protocol} evaluates on", read[copy.row][0]
            assert isinstance(row, ManifestLine)
            cause = f"it is {which}" if copy.same_bytes else f"it is nearly {which}: {copy.apart} of 64 bits differ"
            found.setdefault(row.number, []).append(_of_sample("warning", row.sample, cause))
        return found


def _of_sample(kind: Literal["error", "warning"], sample: ManifestSample, cause: str) -> DataIssue:
    return DataIssue(kind=kind, line=sample.line, path=sample.path, cause=cause)
