"""Initial model of a run: a saved model, or towers assembled from tables and pretrained weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipact.clip_spec import ClipSpec
from clipact.config import parse
from clipact.data.fingerprint import seed_from
from clipact.errors import ConfigError
from clipact.models import checkpoint, towers, zoo
from clipact.models.checkpoint import FileSeen, read_config, read_files_seen
from clipact.models.dual_encoder import DualEncoder
from clipact.models.hub.timm import TimmImage
from clipact.models.hub.transformers_source import find_transformers_source
from clipact.models.hub.transformers_video import TransformersVideo, load_tower
from clipact.models.towers.attention_pool import AttentionPoolTower
from clipact.models.towers.efficientnet_lite import EfficientNetLite
from clipact.models.towers.frame_aggregator import FrameAggregator
from clipact.models.towers.i3d import I3D, MINUS_ONE_TO_ONE
from clipact.models.towers.label_embeddings import LabelEmbeddings
from clipact.models.towers.swin3d import KINETICS, Swin3D
from clipact.models.towers.text import TOKENIZER, BertText
from clipact.models.towers.tower import VisualTower
from clipact.models.towers.vivit import inflate
from clipact.prompts import LabelSet
from clipact.train.chunks import seeded
from clipact.train.pretrained_weights import find_weights, read_weights, rename_bert, rename_efficientnet_lite

_PREPARED = {"swin3d": KINETICS, "i3d": MINUS_ONE_TO_ONE}  # how clips are, for weights that are published as one file


@dataclass(frozen=True, kw_only=True)
class PretrainedWeights:
    """Pretrained weights, as a file's path, PACKAGE:PATH or hf-hub:ORG/NAME/FILE (`clipact.train.pretrained_weights`).

    visual, image, text  weights of the towers but for their heads; a tower without begins at random. `visual` may also
                  be a folder that clipact wrote, or transformers:ORG/NAME or transformers:FOLDER for a "transformers"
                  tower: its config.json makes the tower then, and init.visual says tower and head alone
    tokenizer            the text tower's tokenizer.json, when there is no model to have one from
    """

    visual: str | None = None
    image: str | None = None
    text: str | None = None
    tokenizer: str | None = None


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """A model, or a model with another visual tower, or two towers.

    model         "mini", a folder, or another name that `clipact.models.zoo.load_model` knows
    visual, text  tables of towers, as a model's config.json has them. `text.tower = "label_embeddings"` has a trained
                  vector for each label of the data and no other words: a supervised classifier comes out, with or
                  without a model to have a visual tower from. Beside a model, `visual` takes the place of its visual
                  tower: a "frame_aggregator" or "attention_pool" without `image` keeps its image tower, and the first
                  its shift unless it names one; a "vivit" with `inflate`, "central" or "averaged", is made of it
    clip          how clips are prepared; by default as the folder of pretrained.visual says, else as the model's are,
                  else as the image tower's pictures, and for a "swin3d" or an "i3d" with pretrained.visual as for the
                  published weights (KINETICS in `clipact.models.towers.swin3d`, MINUS_ONE_TO_ONE in
                  `clipact.models.towers.i3d`)
    scale, bias   of the logits at the start; by default the model's with its text tower, else 1/0.07 and none

    ConfigError for what would have no effect, such as `clip` beside a model that keeps its visual tower.
    """

    model: str | None = None
    visual: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)
    pretrained: PretrainedWeights | None = None
    clip: ClipSpec | None = None
    scale: float | None = None
    bias: float | None = None

    def __post_init__(self) -> None:
        words = self.labels_only or (self.text and self.pretrained and self.pretrained.tokenizer)
        if self.model is None and not (self.visual and words):
            raise ConfigError(
                "init takes model, or visual and text with a tokenizer in pretrained or tower = 'label_embeddings'"
            )
        if self.model is not None and self.text and not self.labels_only:
            raise ConfigError("init.text is given beside init.model, which has a text tower; leave one out")
        if self.model is None and "inflate" in self.visual:
            raise ConfigError("init.visual.inflate is given without init.model, whose image tower it is made of")
        if self.scale is not None and self.scale <= 0:
            raise ConfigError(f"init.scale is {self.scale:g}; it is above 0")
        self._refuse_what_has_no_effect()

    @property
    def labels_only(self) -> bool:
        """Whether a supervised classifier comes out, which knows its labels and no other words."""
        return self.text.get("tower") == "label_embeddings"

    def _refuse_what_has_no_effect(self) -> None:
        parts = self.pretrained or PretrainedWeights()
        given = {f"pretrained.{part.name}" for part in fields(parts) if getattr(parts, part.name) is not None}
        given |= {"clip"} if self.clip is not None else set()
        whole = str(parts.visual).startswith("transformers:")
        for holds, idle, why in (
            (self.model and not self.visual, given, "init.model is taken as it is, unless init.visual is given"),
            (self.model, {"pretrained.text", "pretrained.tokenizer"}, "init.model has a text tower and a tokenizer"),
            (
                "inflate" in self.visual,
                {"pretrained.visual", "pretrained.image"},
                "inflate takes init.model's own weights",
            ),
            (
                self.labels_only,
                {"pretrained.text", "pretrained.tokenizer"},
                "init.text is label_embeddings, which have no words",
            ),
            (whole, {"pretrained.image"}, "init.pretrained.visual holds the whole tower's weights"),
        ):
            if holds and (idle := idle & given):
                names = " and ".join(f"init.{name}" for name in sorted(idle))
                raise ConfigError(f"{names} would have no effect: {why}; leave that out")


@dataclass(frozen=True, kw_only=True)
class PriorTraining:
    """Training data of the initial weights: names of data sets, and files by their sha256."""

    trained_on: tuple[str, ...] = ()
    files: dict[str, FileSeen] = field(default_factory=dict)


def prior_training(init: InitConfig, *teachers: str) -> PriorTraining:
    """Return the training data of the initial model and of the teachers.

    What is fine-tuned from them, or distilled from them, is not zero-shot on those either.
    """
    names: list[str] = []
    files: dict[str, FileSeen] = {}
    for model in [init.model, *teachers] if init.model is not None else teachers:
        folder = zoo.find_folder(model)
        names += zoo.trained_on(model)
        files |= {} if folder is None else read_files_seen(folder)
    if (tower := _tower_folder(init.pretrained)) is not None:
        names += read_config(tower).trained_on
        files |= read_files_seen(tower)
    return PriorTraining(trained_on=tuple(dict.fromkeys(names)), files=files)


def make_encoder(init: InitConfig, *, seed: int, labels: tuple[str, ...] = ()) -> DualEncoder:
    """Return the initial model of a run, on the CPU; random weights depend on the seed alone.

    `labels` are those of the data: what label_embeddings hold, unless `init` names them.
    """
    with seeded(seed_from(seed, "start")):
        if init.model is None:
            encoder = _assemble(init, labels)
        else:
            encoder = zoo.load_model(init.model, device="cpu").encoder
            if init.visual:
                encoder = _with_visual(encoder, init)
            if init.labels_only:
                encoder = DualEncoder(encoder.visual, _label_table(init, labels, encoder.visual.dim))
    if init.scale is not None:
        with torch.no_grad():
            encoder.log_scale.copy_(torch.tensor(init.scale).log())
    if init.bias is not None:
        encoder.bias = nn.Parameter(torch.tensor(init.bias))
    return encoder


def _with_visual(encoder: DualEncoder, init: InitConfig) -> DualEncoder:
    """The model with another visual tower, its text tower, scale and bias kept."""
    spec, table = init.clip or encoder.spec, dict(init.visual)
    options = table.pop("inflate", None)
    frames = encoder.visual if isinstance(encoder.visual, FrameAggregator) else None
    visual: VisualTower
    if options is not None:
        if table.pop("tower", None) != "vivit" or frames is None:
            raise ConfigError("init.visual.inflate takes tower = 'vivit', and a model that sees frame by frame")
        if frames.config.shift:
            raise ConfigError(
                f"init.visual.inflate takes a model without shift, for a ViViT has none; the frames of init.model "
                f"are shifted by {frames.config.shift:g}: begin from the model that it was trained from"
            )
        visual = inflate(frames.image, table, inflation=options, spec=spec)
    elif table.get("tower") == "attention_pool" and "image" not in table and frames is not None:
        if frames.config.shift:
            raise ConfigError(f"an attention_pool tower has no shift, and init.model's is {frames.config.shift:g}")
        del table["tower"]
        visual = AttentionPoolTower(
            frames.image, parse(AttentionPoolTower.Config, table, where="init.visual."), spec=spec
        )
        _fill_visual(visual, init.pretrained)
    elif table.get("tower") == "frame_aggregator" and "image" not in table and frames is not None:
        del table["tower"]
        config = parse(FrameAggregator.Config, {"shift": frames.config.shift, **table}, where="init.visual.")
        visual = FrameAggregator(frames.image, config, spec=spec)
        _fill_visual(visual, init.pretrained)
    else:
        visual = _visual(init, spec)
    bias = None if encoder.bias is None else encoder.bias.item()
    return DualEncoder(visual, encoder.text, log_scale=encoder.log_scale.item(), bias=bias)


def _assemble(init: InitConfig, labels: tuple[str, ...]) -> DualEncoder:
    spec = init.clip
    if spec is None and "image" in init.visual:
        spec = replace(towers.image_from(init.visual["image"]).spec, frames=ClipSpec().frames)
    visual = _visual(init, spec or ClipSpec())
    if init.labels_only:
        return DualEncoder(visual, _label_table(init, labels, visual.dim))
    assert init.pretrained is not None
    assert init.pretrained.tokenizer is not None
    tokenizer = find_weights(init.pretrained.tokenizer)
    if tokenizer.name != TOKENIZER:
        raise ConfigError(
            f"init.pretrained.tokenizer is {init.pretrained.tokenizer!r}; it takes a file named {TOKENIZER}"
        )
    text = towers.text_from(init.text, tokenizer.parent)
    if init.pretrained.text is not None:
        _fill(text, init.pretrained.text)
    return DualEncoder(visual, text)


def _label_table(init: InitConfig, labels: tuple[str, ...], dim: int) -> LabelEmbeddings:
    settings = {"labels": labels, "dim": dim} | {key: value for key, value in init.text.items() if key != "tower"}
    config = parse(LabelEmbeddings.Config, settings, where="init.text.")
    LabelSet.of(config.labels, phrases=config.labels)  # which refuses two that read the same
    return LabelEmbeddings(config)


def _visual(init: InitConfig, spec: ClipSpec) -> VisualTower:
    """The visual tower that `init` describes, with its pretrained parts."""
    if (folder := _tower_folder(init.pretrained)) is not None:
        return _from_folder(folder, init)
    place = init.pretrained.visual if init.pretrained is not None else None
    library, _, name = (place or "").partition(":")
    if library != "transformers":
        if place is not None and init.clip is None:
            spec = _PREPARED.get(str(init.visual.get("tower")), spec)
        visual = towers.visual_from(init.visual, spec)
        _fill_visual(visual, init.pretrained)
        return visual
    table = {key: value for key, value in init.visual.items() if key != "tower"}
    if init.visual.get("tower") != "transformers" or "model" in table:
        raise ConfigError(
            f"init.pretrained.visual is {place!r}: init.visual.tower is 'transformers' then, without model"
        )
    # Parsed as a whole, so that an unknown key is named; the table of the network comes from its folder.
    settings = parse(TransformersVideo.Config, table | {"model": {}}, where="init.visual.")
    return load_tower(find_transformers_source(name), head=settings.head, spec=init.clip)


def _tower_folder(pretrained: PretrainedWeights | None) -> Path | None:
    """The folder that clipact wrote and that `pretrained.visual` names, if it does."""
    folder = Path(pretrained.visual).expanduser() if pretrained is not None and pretrained.visual is not None else None
    return folder if folder is not None and folder.is_dir() else None


def _from_folder(folder: Path, init: InitConfig) -> VisualTower:
    """The visual tower of a folder with a new head, and clips as the folder says, unless `init` does."""
    config = read_config(folder)
    for key, value in init.visual.items():
        if key != "head" and (key != "tower" or value != config.visual["tower"]):
            raise ConfigError(
                f"init.visual.{key} is {value!r}, but {folder} decides that; give its tower and head alone"
            )
    head = {"head": init.visual["head"]} if "head" in init.visual else {}
    tower = towers.visual_from(config.visual | head, init.clip or config.clip)
    _load_body(tower, checkpoint.load_visual(folder).state_dict(), str(folder))
    return tower


def _fill_visual(visual: VisualTower, pretrained: PretrainedWeights | None) -> None:
    if pretrained is not None and pretrained.visual is not None:
        _fill(visual, pretrained.visual)
    if pretrained is not None and pretrained.image is not None:
        if not isinstance(visual, towers.BY_FRAME):
            raise ConfigError(f"init.pretrained.image is for towers over an image tower, not a {type(visual).__name__}")
        _fill(visual.image, pretrained.image)


def _fill(tower: nn.Module, place: str) -> None:
    """Load a tower's weights, all but its head's; ConfigError when they are of another network."""
    weights = read_weights(find_weights(place))
    try:
        renamed = _renamed(tower, weights)
    except KeyError as error:
        raise ConfigError(f"{place} does not hold the weights of a {type(tower).__name__}: {error}") from error
    _load_body(tower, renamed, place)


def _load_body(tower: nn.Module, weights: Mapping[str, Tensor], place: str) -> None:
    """Load a tower's weights by its own names, and keep its head."""
    own = {name: value for name, value in tower.state_dict().items() if name.startswith("head.")}
    body = {name: value for name, value in weights.items() if not name.startswith("head.")}
    try:
        tower.load_state_dict(body | own)
    except RuntimeError as error:
        raise ConfigError(f"{place} does not hold the weights of a {type(tower).__name__}: {error}") from error


def _renamed(tower: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if isinstance(tower, EfficientNetLite):
        return rename_efficientnet_lite(weights)
    if isinstance(tower, TimmImage | I3D):
        return tower.rename(weights)
    if isinstance(tower, Swin3D):
        return {f"network.{name}": value for name, value in weights.items() if not name.startswith("head.")}
    if isinstance(tower, BertText):
        return rename_bert(weights, max_tokens=tower.config.max_tokens, depth=tower.config.layers)
    raise ConfigError(f"no pretrained part is known for a {type(tower).__name__}; begin from a model, or at random")
