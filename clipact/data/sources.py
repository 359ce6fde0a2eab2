"""Sources of training data: manifests and protocols in a recipe become training examples.

`files_seen_csv` lists the files of examples, which is kept beside the model that was trained on them.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

from clipact.data.caption_augmentation import CaptionAugmentation
from clipact.data.fingerprint import seed_from, take_fingerprints
from clipact.data.manifest import ManifestSample, read_manifest
from clipact.data.protocol import Protocol, ProtocolWords, load_protocol
from clipact.data.protocol_lists import distinct_samples, list_paths, protocol_labels, read_lists, refuse_unknown
from clipact.errors import ConfigError, DataError, LabelError, ManifestError
from clipact.models.checkpoint import FileSeen
from clipact.prompts import LabelSet, PromptSet


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One manifest or protocol in a recipe.

    manifest              the CSV file, below the data folder
    root                  the folder its paths start from, below the data folder; by default the manifest's own
    labels                a label set or a file of one, which says more of the manifest's labels
    protocol              or a protocol, by its name or file, which says lists, root, labels and templates: its labels
                          are worded as `clipact eval` words them
    split                 which of the samples, or "all"; the protocol's own split is what it evaluates on
    frames                frames a clip: 1 for pictures
    clips                 clips a file, each of which is paired with the file's text
    captions              "one": each epoch draws from a sample's captions; "all": each caption is an example of its own
    sentences             how many different sentences of a sample are drawn each epoch, all where it has fewer; its
                          clips are encoded once, and each goes with each of them
    prompts               the templates that labels are put into, written as its wording says, by default the
                          protocol's, or "action"; each epoch draws from what comes out, so that how sentences are taken
                          together does not matter
    caption_augmentation  how often a caption that is drawn is rephrased
    """

    manifest: Path | None = None
    root: Path | None = None
    labels: str | None = None
    protocol: str | None = None
    split: str = "train"
    frames: int = 1
    clips: int = 1
    captions: Literal["one", "all"] = "one"
    sentences: int = 1
    prompts: str | None = None
    caption_augmentation: CaptionAugmentation | None = None

    def __post_init__(self) -> None:
        if (self.manifest is None) == (self.protocol is None):
            raise ConfigError("a source is a manifest or a protocol; give one of the two")
        if self.protocol is not None and (self.root is not None or self.labels is not None):
            raise ConfigError(
                f"a source is the protocol {self.protocol!r}, which says root and labels; leave these out"
            )
        if self.frames < 1 or self.clips < 1:
            raise ConfigError(f"frames is {self.frames} and clips {self.clips}; both are at least 1")
        if self.sentences < 1:
            raise ConfigError(f"sentences is {self.sentences}; it is at least 1")
        if self.sentences > 1 and self.captions == "all":
            raise ConfigError(
                f"sentences is {self.sentences} beside captions = 'all', where an example has one sentence; "
                "leave one out"
            )


@dataclass(frozen=True, kw_only=True)
class OpenedSource:
    """What is in a source.

    name     of the manifest below the data folder, or of the protocol
    root     where the samples' paths start
    samples  those of the split
    labels   of the whole table, whatever the split, and how they are written in sentences; None for captions
    """

    name: str
    root: Path
    samples: tuple[ManifestSample, ...]
    labels: LabelSet | None
    prompts: PromptSet

    def __post_init__(self) -> None:
        if self.prompts.weights:
            raise ConfigError(
                f"the templates of {self.prompts.name} have weights, and training draws each as often: leave the "
                "weights out"
            )

    def word(self, label: str) -> tuple[str, ...]:
        """The sentences of a label."""
        assert self.labels is not None, label
        return tuple(self.prompts.sentences(self.labels.only([label]))[0])


def open_training_source(source: SourceConfig, data: Path) -> OpenedSource:
    """The samples of a source, whose manifest and root are looked for below the folder `data`.

    DataError when a protocol's list is not the protocol's.
    """
    if source.protocol is not None:
        return _open_protocol(load_protocol(source.protocol), source, data)
    ((path, root),) = table_paths(source, data)
    manifest, labels = read_manifest(path, root), None
    samples = manifest.of_split(source.split)
    if source.labels is not None:
        labels = LabelSet.load(source.labels)
        refuse_unknown(manifest, samples, labels, of=source.labels)
        if samples[0].label is None:
            raise ConfigError(f"labels is {source.labels!r}, but {path} has captions: leave labels out")
    elif own := list(dict.fromkeys(sample.label for sample in manifest.samples if sample.label is not None)):
        try:
            labels = LabelSet.of(own)
        except LabelError as error:
            cause = f"{error}; `labels` in the recipe names a file with words for each"
            raise ManifestError(path, None, cause) from error
    return OpenedSource(
        name=str(source.manifest),
        root=manifest.root,
        samples=samples,
        labels=labels,
        prompts=PromptSet.load(source.prompts or ProtocolWords.templates),
    )


def _open_protocol(protocol: Protocol, source: SourceConfig, data: Path) -> OpenedSource:
    lists = read_lists(protocol, data, split=source.split)
    if wrong := [cause for one in lists for cause in one.wrong]:
        raise DataError(f"the lists in {data} are not those of protocol {protocol.name}: {'; '.join(wrong)}")
    return OpenedSource(
        name=protocol.name,
        root=data / protocol.data.root,
        samples=distinct_samples(lists),
        labels=None if protocol.retrieval else protocol_labels(protocol, lists),
        prompts=PromptSet.load(source.prompts or protocol.words.templates),
    )


def table_paths(source: SourceConfig, data: Path) -> list[tuple[Path, Path | None]]:
    """The tables of a source, and the folder that the paths in each start from, None for the table's own."""
    if source.protocol is not None:
        return [(path, root) for _, path, root in list_paths(load_protocol(source.protocol), data)]
    assert source.manifest is not None
    return [(data / source.manifest, None if source.root is None else data / source.root)]


def trained_sets(sources: Iterable[SourceConfig]) -> tuple[str, ...]:
    """The data sets of the protocols among the sources and their splits, as a model's `trained_on` names them."""
    return tuple(f"{load_protocol(one.protocol).data.set} {one.split}" for one in sources if one.protocol is not None)


@dataclass(frozen=True, kw_only=True)
class TrainingExample:
    """Training example: a file, or a part of it, and the sentences of which `sentences_drawn` are drawn each epoch.

    source                the manifest below the data folder, or the protocol, that names it
    file                  the path below its root: the same wherever the data lie
    visual_id             the same for the same part of the same file
    label                 what happens in it, in one phrase; None where it has captions
    label_id              the same for the same label; None without one
    caption_augmentation  how often a sentence that is drawn is rephrased
    """

    source: str = ""
    file: str
    path: str
    start_seconds: float | None
    end_seconds: float | None
    frames: int
    clips: int
    sentences: tuple[str, ...]
    visual_id: int
    label_id: int | None
    label: str | None = None
    sentences_drawn: int = 1
    caption_augmentation: CaptionAugmentation | None = None

    @property
    def name(self) -> str:
        """The file, and which part of it."""
        return f"{self.file} {self.start_seconds} {self.end_seconds}"

    @property
    def possible_sentences(self) -> tuple[str, ...]:
        """Every sentence that may be drawn, after augmentation."""
        if self.caption_augmentation is None:
            return self.sentences
        augment = self.caption_augmentation
        return tuple(variant for sentence in self.sentences for variant in augment.variants(sentence))


@dataclass(frozen=True, kw_only=True)
class ValidationExamples:
    """Examples to validate on.

    label_sentences  the sentences of each label that is chosen from, by its label_id; empty for captions
    absent_labels    those of which no example is there: the table has them in another split
    """

    examples: tuple[TrainingExample, ...]
    label_sentences: Mapping[int, tuple[str, ...]]
    absent_labels: tuple[str, ...]


def read_validation_examples(source: SourceConfig, data: Path, *, as_labels: bool = False) -> ValidationExamples:
    """The examples of a source, and all labels of its table, as an evaluation chooses from them; as `read_sources`."""
    opened = open_training_source(source, data)
    examples = tuple(_examples(opened, source, as_labels=as_labels))
    there = {example.label for example in examples}
    labels = () if opened.labels is None else opened.labels.labels
    return ValidationExamples(
        examples=examples,
        label_sentences={label_id(label): (label,) if as_labels else opened.word(label) for label in labels},
        absent_labels=tuple(label for label in labels if label not in there),
    )


def label_id(label: str) -> int:
    """The same for the same label."""
    return seed_from("label", label)


def read_sources(
    sources: Sequence[SourceConfig], data: Path, *, as_labels: bool = False
) -> tuple[TrainingExample, ...]:
    """The examples of all sources, in their order; manifests and roots are looked for below the folder `data`.

    With `as_labels` the one sentence of each example is its label; ManifestError for a sample that has captions.
    """
    return tuple(
        example
        for source in sources
        for example in _examples(open_training_source(source, data), source, as_labels=as_labels)
    )


def _examples(opened: OpenedSource, source: SourceConfig, *, as_labels: bool) -> Iterator[TrainingExample]:
    labels = {sample.label for sample in opened.samples if sample.label is not None}
    if labels and source.caption_augmentation is not None:
        raise ConfigError(
            f"caption_augmentation is for captions, but {opened.name} has labels; its prompts word them in other ways"
        )
    worded = {label: (label,) if as_labels else opened.word(label) for label in labels}
    most = 1
    for sample in opened.samples:
        if as_labels and sample.label is None:
            raise ManifestError(
                opened.name, None, f"{sample.path} has captions and no label; label_embeddings are trained on labels"
            )
        sentences = sample.captions if sample.label is None else worded[sample.label]
        most = max(most, len(sentences))
        for texts in [(s,) for s in sentences] if source.captions == "all" else [sentences]:
            yield _example(sample, texts, source, opened)
    if source.sentences > most == 1:
        raise ConfigError(
            f"sentences is {source.sentences}, but no sample of {opened.name} has more than one; leave it out"
        )


def _example(
    sample: ManifestSample, sentences: tuple[str, ...], source: SourceConfig, opened: OpenedSource
) -> TrainingExample:
    path = str(opened.root / sample.path)
    return TrainingExample(
        source=opened.name,
        file=sample.path,
        path=path,
        start_seconds=sample.start_seconds,
        end_seconds=sample.end_seconds,
        frames=source.frames,
        clips=source.clips,
        sentences=sentences,
        visual_id=seed_from("file", path, f"{sample.start_seconds} {sample.end_seconds}"),
        label_id=None if sample.label is None else label_id(sample.label),
        label=sample.label,
        sentences_drawn=min(source.sentences, len(set(sentences))),
        caption_augmentation=source.caption_augmentation,
    )


def files_seen_csv(examples: Iterable[TrainingExample], *, before: Mapping[str, FileSeen] | None = None) -> str:
    """A CSV table of the files of the examples, as `clipact.models.checkpoint.read_files_seen` reads it.

    `before` are those that the weights had seen when the run began, by their sha256; no content is listed twice.
    """
    files, seen = {example.path: example for example in examples}, dict(before or {})
    prints = take_fingerprints([Path(path) for path in files])
    for example, taken in zip(files.values(), prints, strict=True):
        seen.setdefault(
            taken.sha256,
            FileSeen(
                path=example.file,
                source=example.source,
                sha256=taken.sha256,
                difference_hash=taken.difference_hash,
            ),
        )
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([field.name for field in fields(FileSeen)])
    table.writerows(astuple(one) for one in seen.values())
    return text.getvalue()
