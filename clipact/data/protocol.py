"""Evaluation protocol: which files, words, frames, averaging and metric make a result.

Protocols are TOML files; those that come with clipact lie under eval/protocols, with the lists of files that they name.
A protocol is read strictly and completely here; no data are read (clipact.evaluate does that).
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from clipact import aliases
from clipact.clip_spec import Averaging, ClipSpec, Resize, Sampling
from clipact.config import asset_names, asset_path, load_toml, parse
from clipact.errors import ConfigError, UsageError, choices

Metric = Literal["top_1", "mean_per_class", "mean_ap", "retrieval"]


@dataclass(frozen=True, kw_only=True)
class ProtocolPart:
    """One list of files: a manifest beside the protocol (`list`) or below the data folder (`manifest`).

    name    what the part is called in results; needed when there are several
    sha256  of the list's bytes
    count   samples in it, of the protocol's split
    """

    name: str = ""
    list: str = ""
    manifest: str = ""
    sha256: str = ""
    count: int | None = None

    def __post_init__(self) -> None:
        if bool(self.list) == bool(self.manifest):
            raise ConfigError(f"part {self.name!r} takes one of list (beside the protocol) and manifest (below --data)")


@dataclass(frozen=True, kw_only=True)
class ProtocolData:
    """The samples.

    set            the data set's name: a model that lists it in `trained_on` is not zero-shot on it; "" for none
    aliases        other names for it, and sets that hold its files
    parts          the lists of files; what stands in several is decoded once
    root           where paths start, below the data folder
    split          which samples of the lists, or "all"
    group          the column that says which samples are not independent of each other
    group_pattern  or a regular expression over paths: what (?P<group>...) in it, or else its first group, matches
    count          distinct samples in all parts
    files_sha256   of the lines "name sha256" of all samples in their order; "" when nobody could take it
    """

    set: str
    aliases: tuple[str, ...] = ()
    parts: tuple[ProtocolPart, ...]
    root: str = "."
    split: str = "all"
    group: str = ""
    group_pattern: str = ""
    count: int | None = None
    files_sha256: str = ""

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if not names or (len(names) > 1 and (len(set(names)) < len(names) or "" in names)):
            raise ConfigError(f"data.parts have the names {names}; at least one part, and a name for each of several")
        try:
            groups = re.compile(self.group_pattern).groups
        except re.error as error:
            raise ConfigError(f"data.group_pattern {self.group_pattern!r}: {error}") from error
        if self.group_pattern and (groups < 1 or self.group):
            raise ConfigError("data.group_pattern needs a group in round brackets, and no data.group beside it")


@dataclass(frozen=True, kw_only=True)
class ProtocolWords:
    """Labels and the sentences made of them.

    set        a shipped label set or a file of one; its phrases are used
    names      or the labels themselves; without either, those in the lists, sorted
    verbatim   True: labels go into the templates unchanged, as some protocols ask
    templates  a shipped prompt set or a file of one
    """

    set: str = ""
    names: tuple[str, ...] = ()
    verbatim: bool = False
    templates: str = "action"

    def __post_init__(self) -> None:
        if self.set and self.names:
            raise ConfigError("words takes one of set and names")


@dataclass(frozen=True, kw_only=True)
class Views:
    """What is seen of a file. None is the model's own way.

    frames, sampling, resize  as in ClipSpec
    views      clips a file, spread over it
    crops      1 (the centre), or 3
    averaging  what is averaged over the views: unit embeddings (then made unit again), logits, or probabilities
    """

    frames: int | None = None
    sampling: Sampling | None = None
    resize: Resize | None = None
    stride: int | None = None
    views: int = 1
    crops: Literal[1, 3] = 1
    averaging: Averaging = "embeddings"

    def __post_init__(self) -> None:
        if self.views < 1 or (self.frames is not None and self.frames < 1):
            raise ConfigError(f"views is {self.views} and frames {self.frames}; both are at least 1")
        if self.averaging not in get_args(Averaging):
            raise ConfigError(f"averaging is {self.averaging!r}; {choices(self.averaging, get_args(Averaging))}")

    def apply(self, spec: ClipSpec) -> ClipSpec:
        """The model's spec with what the protocol asks instead."""
        asked = {name: getattr(self, name) for name in ("frames", "sampling", "resize", "stride")}
        return replace(spec, **{name: value for name, value in asked.items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A protocol. `metric` is its one figure; `source` says who made it and where it stands; `notes` how ours differs.

    folder  where the lists beside it lie
    """

    name: str
    title: str
    metric: Metric
    source: str
    data: ProtocolData
    words: ProtocolWords = field(default_factory=ProtocolWords)
    views: Views = field(default_factory=Views)
    notes: str = ""
    folder: Path = Path()

    def __post_init__(self) -> None:
        if self.retrieval and (self.words != ProtocolWords() or self.views.averaging != "embeddings"):
            raise ConfigError(
                "a protocol of retrieval takes no [words] and no views.averaging: captions are sentences already, "
                "and compared with the mean of the views' embeddings"
            )

    @property
    def retrieval(self) -> bool:
        """Whether captions are retrieved, instead of labels recognised."""
        return self.metric == "retrieval"


def protocol_names() -> list[str]:
    """The protocols that come with clipact, sorted."""
    return [name.removesuffix(".toml") for name in asset_names("eval/protocols") if name.endswith(".toml")]


def load_protocol(name_or_path: str | Path) -> Protocol:
    """A shipped protocol by its name, or a TOML file by its path; UsageError when it is neither."""
    names = protocol_names()
    path = (
        asset_path(f"eval/protocols/{name_or_path}.toml") if name_or_path in names else Path(name_or_path).expanduser()
    )
    if not path.is_file():
        raise UsageError(
            f"there is no protocol {str(name_or_path)!r}; {choices(str(name_or_path), names)}; or give a file"
        )
    try:
        return replace(parse(Protocol, aliases.rename(load_toml(path), "protocol")), folder=path.parent)
    except ConfigError as error:
        raise error if str(error).startswith(str(path)) else ConfigError(f"{path}: {error}") from error
