"""The split of a comparison: no person, sequence or film is in both the training and the test part."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clipact.data.manifest import read_manifest
from clipact.data.protocol import Protocol
from clipact.errors import DataError, UsageError
from clipact.evaluate import EvalSample, EvalSamples, manifest_protocol, read_samples
from clipact.evaluate.run_protocol import file_name
from clipact.report.page import csv_text, write_text

_PART_OF = re.compile(r"(\d+)/(\d+)")
_DEFAULT = "1/3"


@dataclass(frozen=True, kw_only=True)
class ComparisonSplit:
    """Hold the training and the test samples, of the same labels, which are those of the training samples.

    description  how the samples were divided, in words
    tag          the same as part of a file's name
    root         the folder that paths start from
    """

    protocol: Protocol
    train: EvalSamples
    test: EvalSamples
    description: str
    tag: str
    root: Path

    @property
    def sides(self) -> tuple[tuple[str, EvalSamples], tuple[str, EvalSamples]]:
        """Both parts, by what a table calls their split."""
        return ("train", self.train), ("test", self.test)

    def write(self, folder: Path) -> Path:
        """The split as a table that training reads, with a column for what belongs together."""
        lines = [
            [item.path.relative_to(self.root), item.label, name, item.start_seconds, item.end_seconds, item.group]
            for name, samples in self.sides
            for item in samples.items
        ]
        head = ["path", "label", "split", "start_seconds", "end_seconds", "group"]
        text = csv_text(head, [["" if value is None else value for value in line] for line in lines])
        return write_text(folder / f"{file_name(self.protocol.name)}-{self.tag}.csv", text)


def read_split(
    protocol_or_table: Protocol | str | Path, data: Path, *, split: str | None = None, allow_mismatch: bool = False
) -> ComparisonSplit:
    """The samples of a protocol, or of a CSV table of one's own, in two parts.

    split  "1/3": groups in their order are dealt to three parts in turn; the first is the test set, the others the
           training set. Without a group, the clips of a file are one. Or, of a table, the split to test on, where
           "train" is the one to train on. By default "test" of a table that has it, else "1/3"
    UsageError for captions, for a split that cannot be meant, and for a label that no learnt clip has.
    """
    own = None if isinstance(protocol_or_table, Protocol) else Path(protocol_or_table)
    if own is not None and split is None:
        there = {sample.split for sample in read_manifest(own).samples}
        split = "test" if {"train", "test"} <= there else None
    split = split or _DEFAULT
    part_of = _PART_OF.fullmatch(split)
    if part_of is None:
        if own is None:
            raise UsageError(f"--split is {split!r}; of a protocol it is one part of several, such as {_DEFAULT}")
        protocol = manifest_protocol(own, split=split)
        train = read_samples(manifest_protocol(own, split="train"), data, allow_mismatch=allow_mismatch)
        test = read_samples(protocol, data, allow_mismatch=allow_mismatch)
        description = f"learnt from split train, judged by split {split}"
    else:
        protocol = (
            protocol_or_table if isinstance(protocol_or_table, Protocol) else manifest_protocol(protocol_or_table)
        )
        train, test, description = _deal(
            protocol, read_samples(protocol, data, allow_mismatch=allow_mismatch), *map(int, part_of.groups())
        )
    if train.labels is None or test.labels is None:
        raise UsageError("captions are not labels: a comparison is of labels")
    # Sorted: every row chooses from the same, in the same order.
    labels = train.labels.only(sorted({str(item.label) for item in train.items}))
    if unknown := sorted({str(item.label) for item in test.items} - set(labels.labels)):
        raise UsageError(f"{', '.join(map(repr, unknown))} is in no clip that is learnt from; {description}")
    both = set(train.groups) & set(test.groups)
    if both:
        raise DataError(
            f"{len(both)} of the files and groups are in both parts, {min(both)} among them; "
            "parts of one video look alike: keep each file and each group in one split"
        )
    return ComparisonSplit(
        protocol=protocol,
        train=replace(train, labels=labels),
        test=replace(test, labels=labels, data={**test.data, "comparison_split": description}),
        description=description,
        tag=split.replace("/", "-of-"),
        root=Path(data).expanduser() / protocol.data.root,
    )


def _deal(protocol: Protocol, samples: EvalSamples, part: int, parts: int) -> tuple[EvalSamples, EvalSamples, str]:
    if not 1 <= part <= parts or parts < 2:
        raise UsageError(f"--split is {part}/{parts}; write 1/{max(parts, 2)} to {max(parts, 2)}/{max(parts, 2)}")
    owners = samples.groups
    order = sorted(set(owners), key=lambda owner: (len(owner), owner))
    if len(order) < parts:
        raise UsageError(f"--split is {part}/{parts}, and there are {len(order)} groups to deal; take fewer parts")
    held_out = set(order[part - 1 :: parts])
    grouped = any(item.group for item in samples.items)
    what = (protocol.data.group or "group") if grouped else "file" if len(order) < len(owners) else "clip"
    description = (
        f"by {what}: {len(order) - len(held_out)} of {len(order)} are learnt from, "
        f"{len(held_out)} judge (part {part} of {parts})"
    )
    test = [item for item, owner in zip(samples.items, owners, strict=True) if owner in held_out]
    train = [item for item, owner in zip(samples.items, owners, strict=True) if owner not in held_out]
    fewer = f"judged by {len(test)} of {len(samples)} samples: {description}"
    return _part(samples, train), replace(_part(samples, test), partial_why=(*samples.partial_why, fewer)), description


def _part(samples: EvalSamples, items: list[EvalSample]) -> EvalSamples:
    return replace(samples, items=tuple(items), parts=dict[str, np.ndarray]())


def describe_samples(samples: EvalSamples) -> dict[str, object]:
    """How many there are, of how many groups, and of each label."""
    counts = Counter(str(item.label) for item in samples.items)
    return {"clips": len(samples), "groups": len(set(samples.groups)), "labels": dict(sorted(counts.items()))}
