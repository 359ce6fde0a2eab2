"""One source of a recipe: a manifest, or a protocol card's lists, and how labels are put into words.

Manifests are read here; no media file is opened.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clipact.data.card_lists import card_labels, distinct, list_places, read_lists, refuse_unknown
from clipact.data.manifest import Sample, read_manifest
from clipact.data.rewording import Rewording
from clipact.errors import ConfigError, DataError
from clipact.prompts import LabelSet, PromptSet
from clipact.protocol import Card, Words, load_card


@dataclass(frozen=True, kw_only=True)
class Source:
    """One manifest or protocol card in a recipe.

    manifest  the CSV file, below the data folder
    root      the folder its paths start from, below the data folder; by default the manifest's own
    labels    a label set or a file of one, which says more of the manifest's labels
    card      or a card, by its name or file, which says lists, root, labels and templates: its labels are said here as
              `clipact eval` says them
    split     which of the samples, or "all"; the card's own split is what judges
    frames    frames a clip: 1 for pictures
    clips     clips a file, each of which is paired with the file's text
    captions  "one": each epoch draws from a sample's captions; "all": each caption is an entry of its own
    sentences how many different sentences of a sample are drawn each epoch, all where it has fewer; its clips are
              encoded once, and each goes with each of them
    prompts   the templates that labels are put into, written as its wording says, by default the card's, or "action";
              each epoch draws from what comes out, so that how sentences are taken together does not matter
    vary      how often a caption that is drawn is said otherwise
    """

    manifest: Path | None = None
    root: Path | None = None
    labels: str | None = None
    card: str | None = None
    split: str = "train"
    frames: int = 1
    clips: int = 1
    captions: Literal["one", "all"] = "one"
    sentences: int = 1
    prompts: str | None = None
    vary: Rewording | None = None

    def __post_init__(self) -> None:
        if (self.manifest is None) == (self.card is None):
            raise ConfigError("a source is a manifest or a card; give one of the two")
        if self.card is not None and (self.root is not None or self.labels is not None):
            raise ConfigError(f"a source is the card {self.card!r}, which says root and labels; leave these out")
        if self.frames < 1 or self.clips < 1:
            raise ConfigError(f"frames is {self.frames} and clips {self.clips}; both are at least 1")
        if self.sentences < 1:
            raise ConfigError(f"sentences is {self.sentences}; it is at least 1")
        if self.sentences > 1 and self.captions == "all":
            raise ConfigError(
                f"sentences is {self.sentences} beside captions = 'all', where an entry has one sentence; leave one out"
            )


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What is in a source.

    name    of the manifest below the data folder, or of the card
    root    where the samples' paths start
    labels  how labels are written, where anything says so
    """

    name: str
    root: Path
    samples: tuple[Sample, ...]
    labels: LabelSet | None
    prompts: PromptSet

    def __post_init__(self) -> None:
        if self.prompts.weights:
            raise ConfigError(
                f"the templates of {self.prompts.name} have weights, and training draws each as often: leave the "
                "weights out"
            )

    def say(self, label: str) -> tuple[str, ...]:
        """The sentences of a label."""
        one = LabelSet.of([label]) if self.labels is None else self.labels.only([label])
        return tuple(self.prompts.sentences(one)[0])


def open_source(source: Source, data: Path) -> Opened:
    """The samples of a source, whose manifest and root are looked for below the folder `data`.

    DataError when a card's list is not the card's.
    """
    if source.card is not None:
        return _open_card(load_card(source.card), source, data)
    ((path, root),) = places(source, data)
    manifest, labels = read_manifest(path, root), None
    samples = manifest.of_split(source.split)
    if source.labels is not None:
        labels = LabelSet.load(source.labels)
        refuse_unknown(manifest, samples, labels, of=source.labels)
        if samples[0].label is None:
            raise ConfigError(f"labels is {source.labels!r}, but {path} has captions: leave labels out")
    return Opened(
        name=str(source.manifest),
        root=manifest.root,
        samples=samples,
        labels=labels,
        prompts=PromptSet.load(source.prompts or Words().templates),
    )


def _open_card(card: Card, source: Source, data: Path) -> Opened:
    lists = read_lists(card, data, split=source.split)
    if wrong := [cause for one in lists for cause in one.wrong]:
        raise DataError(f"the lists in {data} are not those of card {card.name}: {'; '.join(wrong)}")
    return Opened(
        name=card.name,
        root=data / card.data.root,
        samples=distinct(lists),
        labels=None if card.retrieval else card_labels(card, lists),
        prompts=PromptSet.load(source.prompts or card.words.templates),
    )


def places(source: Source, data: Path) -> list[tuple[Path, Path | None]]:
    """The tables of a source, and the folder that the paths in each start from, None for the table's own."""
    if source.card is not None:
        return [(path, root) for _, path, root in list_places(load_card(source.card), data)]
    assert source.manifest is not None
    return [(data / source.manifest, None if source.root is None else data / source.root)]


def sets_learnt(sources: Iterable[Source]) -> tuple[str, ...]:
    """The data sets of the cards among the sources and their splits, as a model's `trained_on` names them."""
    return tuple(f"{load_card(one.card).data.set} {one.split}" for one in sources if one.card is not None)
