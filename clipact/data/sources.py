"""What a run learns from: manifests and cards, and what is taken from them, become one list of entries.

Pictures, clips, and files that give several clips may stand in one list: an entry knows its frames and clips.
Manifests are read here; no media file is opened.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipact.data.manifest import Sample
from clipact.data.order import seed_from
from clipact.data.rewording import Rewording
from clipact.data.source import Opened, Source, open_source
from clipact.errors import ConfigError, ManifestError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is learnt from at a time: a file, or a part of it, and the sentences of which `drawn` are said at its turn.

    source     the manifest below the data folder, or the card, that names it
    file       the path below its root: the same wherever the data lie
    visual_id  the same for the same part of the same file
    label      what happens in it, in one phrase; None where captions say it
    label_id   the same for the same label; None without one
    vary       how often a sentence that is drawn is said otherwise
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
    opened = open_source(source, data)
    labels = {sample.label for sample in opened.samples if sample.label is not None}
    if labels and source.vary is not None:
        raise ConfigError(f"vary is of captions, and {opened.name} has labels; its prompts say them in other ways")
    worded = {label: (label,) if as_labels else opened.say(label) for label in labels}
    most = 1
    for sample in opened.samples:
        if as_labels and sample.label is None:
            raise ManifestError(
                opened.name, None, f"{sample.path} has captions and no label; a table of labels learns from labels"
            )
        sentences = sample.captions if sample.label is None else worded[sample.label]
        most = max(most, len(sentences))
        for said in [(s,) for s in sentences] if source.captions == "all" else [sentences]:
            yield _entry(sample, said, source, opened)
    if source.sentences > most == 1:
        raise ConfigError(
            f"sentences is {source.sentences}, but no sample of {opened.name} has more than one; leave it out"
        )


def _entry(sample: Sample, sentences: tuple[str, ...], source: Source, opened: Opened) -> Entry:
    path = str(opened.root / sample.path)
    return Entry(
        source=opened.name,
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
