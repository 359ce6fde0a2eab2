"""What a run learns from: manifests, and what is taken from them, become one list of entries.

Pictures, clips, and files that give several clips may stand in one list: an entry knows its frames and clips.
Manifests are read here; no media file is opened.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clipact.data.manifest import Manifest, Sample, read_manifest
from clipact.data.order import seed_from
from clipact.data.rewording import Rewording
from clipact.errors import ConfigError, ManifestError
from clipact.prompts import PromptSet


@dataclass(frozen=True, kw_only=True)
class Source:
    """One manifest in a recipe.

    manifest  the CSV file, below the data folder
    root      the folder its paths start from, below the data folder; by default the manifest's own
    split     which of its samples, or "all"
    frames    frames a clip: 1 for pictures
    clips     clips a file, each of which is paired with the file's text
    captions  "one": each epoch draws from a sample's captions; "all": each caption is an entry of its own
    sentences how many different sentences of a sample are drawn each epoch, all where it has fewer; its clips are
              encoded once, and each goes with each of them
    prompts   the templates that labels are put into, written as its wording says; each epoch draws from what comes out,
              so that how sentences are taken together does not matter
    vary      how often a caption that is drawn is said otherwise
    """

    manifest: Path
    root: Path | None = None
    split: str = "train"
    frames: int = 1
    clips: int = 1
    captions: Literal["one", "all"] = "one"
    sentences: int = 1
    prompts: str = "action"
    vary: Rewording | None = None

    def __post_init__(self) -> None:
        if self.frames < 1 or self.clips < 1:
            raise ConfigError(f"frames is {self.frames} and clips {self.clips}; both are at least 1")
        if self.sentences < 1:
            raise ConfigError(f"sentences is {self.sentences}; it is at least 1")
        if self.sentences > 1 and self.captions == "all":
            raise ConfigError(
                f"sentences is {self.sentences} beside captions = 'all', where an entry has one sentence; leave one out"
            )


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is learnt from at a time: a file, or a part of it, and the sentences of which `drawn` are said at its turn.

    file       the path below its manifest's root: the same wherever the data lie
    visual_id  the same for the same part of the same file
    label      what happens in it, in one phrase; None where captions say it
    label_id   the same for the same label; None without one
    vary       how often a sentence that is drawn is said otherwise
    """

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
    drawn: int = 1
    vary: Rewording | None = None

    @property
    def name(self) -> str:
        """The file, and which part of it."""
        return f"{self.file} {self.start_seconds} {self.end_seconds}"

    @property
    def sayings(self) -> tuple[str, ...]:
        """Everything that may be said at its turn."""
        if self.vary is None:
            return self.sentences
        return tuple(said for sentence in self.sentences for said in self.vary.sayings(sentence))


def read_sources(sources: Sequence[Source], data: Path, *, as_labels: bool = False) -> tuple[Entry, ...]:
    """The entries of all sources, in their order; manifests and roots are looked for below the folder `data`.

    With `as_labels` each entry says its label and nothing else; ManifestError for a sample that has captions instead.
    """
    return tuple(entry for source in sources for entry in _entries(source, data, as_labels=as_labels))


def _entries(source: Source, data: Path, *, as_labels: bool) -> Iterator[Entry]:
    manifest = read_manifest(data / source.manifest, None if source.root is None else data / source.root)
    samples = manifest.of_split(source.split)
    prompts = PromptSet.load(source.prompts)
    if prompts.weights:
        raise ConfigError(
            f"the templates of {source.prompts} have weights, and training draws each as often: leave the weights out"
        )
    labels = {sample.label for sample in samples if sample.label is not None}
    if labels and source.vary is not None:
        raise ConfigError(f"vary is of captions, and {manifest.source} has labels; its prompts say them in other ways")
    worded = {label: (label,) if as_labels else tuple(prompts.sentences([label])[0]) for label in labels}
    most = 1
    for sample in samples:
        if as_labels and sample.label is None:
            raise ManifestError(
                manifest.source, None, f"{sample.path} has captions and no label; a table of labels learns from labels"
            )
        sentences = sample.captions if sample.label is None else worded[sample.label]
        most = max(most, len(sentences))
        for said in [(s,) for s in sentences] if source.captions == "all" else [sentences]:
            yield _entry(sample, said, source, manifest)
    if source.sentences > most == 1:
        raise ConfigError(
            f"sentences is {source.sentences}, but no sample of {manifest.source} has more than one; leave it out"
        )


def _entry(sample: Sample, sentences: tuple[str, ...], source: Source, manifest: Manifest) -> Entry:
    path = str(manifest.root / sample.path)
    return Entry(
        file=sample.path,
        path=path,
        start_seconds=sample.start_seconds,
        end_seconds=sample.end_seconds,
        frames=source.frames,
        clips=source.clips,
        sentences=sentences,
        visual_id=seed_from("file", path, f"{sample.start_seconds} {sample.end_seconds}"),
        label_id=None if sample.label is None else seed_from("label", sample.label),
        label=sample.label,
        drawn=min(source.sentences, len(set(sentences))),
        vary=source.vary,
    )
