"""Adapt transformers' dual encoders (https://github.com/huggingface/transformers) to an image and a text tower.

CLIP, SigLIP and SigLIP 2; the text side is X-CLIP's, too. transformers is imported inside functions: that costs 4.6 s.
Nothing in a model's files is executed: weights are safetensors, or pickles that hold tensors alone, and a repository's
own code is never asked for. Files are found by `transformers_source`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipact.errors import ConfigError, ModelError, choices, import_library
from clipact.models.hub.open_clip import check_holds_tensors_only
from clipact.models.hub.timm import run_image_network
from clipact.models.hub.transformers_source import TransformersSource, transformers_clip_spec
from clipact.models.towers.tower import HasFeatureMaps, ImageTower, SupportsTemporalShift, TextTower

Side = Literal["vision", "text"]


@dataclass(frozen=True)
class DualEncoderFamily:
    """What transformers calls a kind of model, and how its sentences are padded: to the longest, or always fully."""

    name: str
    padding: Literal["longest", "max_length"]


DUAL_ENCODERS = {
    "clip": DualEncoderFamily("CLIP", "longest"),
    "siglip": DualEncoderFamily("Siglip", "max_length"),
    "siglip2": DualEncoderFamily("Siglip2", "max_length"),
    "xclip": DualEncoderFamily("XCLIP", "longest"),
}
IMAGE_FAMILIES = ("clip", "siglip", "siglip2")


class TransformersImage(ImageTower, SupportsTemporalShift, HasFeatureMaps):
    """The visual side of a dual encoder: what get_image_features gives."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """transformers' own tables.

        model       config.json; its model_type, vision_config and projection_dim count
        preprocess  preprocessor_config.json, where it differs from the family's default
        """

        model: dict[str, Any]
        preprocess: dict[str, Any] = field(default_factory=dict)

    def __init__(self, config: Config, *, network: Any = None) -> None:
        """`network` is a whole model of which the visual side is taken; a fresh one is made when it is None."""
        super().__init__()
        self.config = config
        self.family = _family(config.model, IMAGE_FAMILIES)
        network = network or make_side(config.model, "vision")
        self.body = network.vision_model
        self.project = getattr(network, "visual_projection", None) or nn.Identity()
        self.spec = transformers_clip_spec(self.family, config.preprocess)
        self.dim = self.project.out_features if isinstance(self.project, nn.Linear) else self.body.config.hidden_size

    @property
    def residual_branches(self) -> list[tuple[nn.Module, int]]:
        """The norms before attention."""
        return [(layer.layer_norm1, -1) for layer in self.body.encoder.layers]

    @property
    def map_dim(self) -> int:
        """The width of a token."""
        return int(self.body.config.hidden_size)

    def maps(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h2 w2 f"]:
        """The tokens of each picture's patches, before pooling and projection."""
        rows, columns = (side // self.body.config.patch_size for side in images.shape[-2:])
        tokens = self._encode(images).last_hidden_state[:, -rows * columns :]  # behind the class token, if there is one
        return rearrange(tokens, "b (h w) f -> b h w f", h=rows)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The features of each picture; ModelError for a size that the network was not made for."""
        return self.project(self._encode(images).pooler_output)

    def _encode(self, images: Float[Tensor, "b c h w"]) -> Any:
        size, patch = tuple(images.shape[-2:]), self.body.config.patch_size
        if self.family == "siglip2":
            if size[0] % patch or size[1] % patch:
                raise ModelError(f"pictures are {size} pixels; this tower takes multiples of {patch}")
            patches = rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=patch, q=patch)
            shapes = torch.tensor([[size[0] // patch, size[1] // patch]], device=images.device)
            return self.body(
                patches,
                pixel_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long, device=images.device),
                spatial_shapes=shapes.expand(len(patches), 2),
            )
        return run_image_network(self.body, images, size=(self.body.config.image_size,) * 2, fixed=True)


class TransformersText(TextTower):
    """The text side of a dual encoder: what get_text_features gives.

    The tokenizer is made when the first sentence comes, or by `load_tokenizer`; ModelError where it cannot be had.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """transformers' own config.json; its model_type, text_config and projection_dim count."""

        model: dict[str, Any]

    def __init__(self, config: Config, tokenizer_file: Path, *, network: Any = None) -> None:
        """`network` is as for TransformersImage; `tokenizer_file`'s folder holds the tokenizer."""
        super().__init__()
        self.config = config
        self.family = _family(config.model, DUAL_ENCODERS)
        network = network or make_side(config.model, "text")
        self.body = network.text_model
        self.project = getattr(network, "text_projection", None) or nn.Identity()
        sizes = self.body.config
        self.dim = self.project.out_features if isinstance(self.project, nn.Linear) else sizes.projection_size
        self.max_tokens = sizes.max_position_embeddings
        self.folder = tokenizer_file.parent
        self._tokenizer: Any = None

    def load_tokenizer(self) -> Any:
        """transformers' own tokenizer, made the first time."""
        if self._tokenizer is None:
            self._tokenizer = _tokenizer_in(self.folder, vocabulary=self.body.config.vocab_size)
        return self._tokenizer

    def tokenize(self, sentences: Sequence[str]) -> Int[Tensor, "b l"]:
        """Token ids, padded as the model was trained and cut at its length."""
        made = self.load_tokenizer()(
            list(sentences),
            padding=DUAL_ENCODERS[self.family].padding,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        return cast(Tensor, made["input_ids"])

    def forward(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b d"]:
        """The features of each sentence."""
        return self.project(self.body(ids).pooler_output)

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer's files."""
        self.load_tokenizer().save_pretrained(folder)


@dataclass(frozen=True, kw_only=True)
class TransformersParts:
    """A dual encoder taken apart, in evaluation mode on the CPU; log_scale and bias as DualEncoder wants them."""

    image: TransformersImage
    text: TransformersText
    log_scale: float
    bias: float | None


def load_transformers(source: TransformersSource) -> TransformersParts:
    """The model's towers with their weights; ModelError when the files do not make one."""
    if (family := source.family) not in IMAGE_FAMILIES:
        raise ModelError(
            f"{source.name} is a {family!r}, which does not answer to words; {choices(family, DUAL_ENCODERS)}"
        )
    model = load_network(source, f"{DUAL_ENCODERS[family].name}Model")
    table = config_table(model)
    bias = getattr(model, "logit_bias", None)
    image = TransformersImage.Config(model=without(table, "text_config"), preprocess=preprocess_of(source))
    text = TransformersText.Config(model=without(table, "vision_config"))
    return TransformersParts(
        image=TransformersImage(image, network=model).eval(),
        text=TransformersText(text, source.folder / "tokenizer.json", network=model).eval(),
        log_scale=model.logit_scale.item(),
        bias=None if bias is None else bias.item(),
    )


def preprocess_of(source: TransformersSource) -> dict[str, Any]:
    """How the model's pictures are prepared, as transformers says it; ModelError when its folder does not."""
    if source.preprocess is None:
        raise ModelError(f"{source.folder} does not say how pictures are prepared: it has no preprocessor_config.json")
    return source.preprocess


def load_network(source: TransformersSource, kind: str, *, may_be_missing: tuple[str, ...] = ()) -> Any:
    """transformers' model of that class with the folder's weights, in fp32; ModelError when they do not fit it.

    What begins with a word of `may_be_missing` may be missing: it is drawn at random.
    """
    transformers = import_library("transformers")

    safe = source.weights.suffix != ".bin"
    if not safe:
        check_holds_tensors_only(source.weights)
    try:
        with quiet_transformers():
            network, found = getattr(transformers, kind).from_pretrained(
                source.folder,
                local_files_only=True,
                use_safetensors=safe,
                weights_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # whatever transformers stumbles over in files that hold another model
        raise ModelError(
            f"transformers {transformers.__version__} cannot make a {kind} of {source.folder}: {first_line(error)}"
        ) from error
    if missing := sorted(name for name in found["missing_keys"] if not name.startswith(may_be_missing)):
        raise ModelError(
            f"{source.weights} is no whole {kind}: it lacks {len(missing)} weights, the first is {missing[0]}"
        )
    return network.float().eval()


def config_table(network: Any) -> dict[str, Any]:
    """What a config.json says of the network's build, all defaults spelled out."""
    table = json.loads(network.config.to_json_string(use_diff=True))
    return without(table, "architectures", "dtype", "transformers_version", "_name_or_path", "id2label", "label2id")


def without(table: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The table without these keys."""
    return {key: value for key, value in table.items() if key not in keys}


def make_network(kind: str, table: dict[str, Any]) -> Any:
    """A network of transformers' class `kind`Model with fresh weights; ConfigError when the table makes none."""
    transformers = import_library("transformers")

    try:
        with quiet_transformers():
            config = getattr(transformers, f"{kind}Config").from_dict(dict(table))
            return getattr(transformers, f"{kind}Model")(config)
    except Exception as error:  # transformers checks tables in many ways
        raise ConfigError(
            f"transformers {transformers.__version__} cannot make a {kind}Model of the table model: {first_line(error)}"
        ) from error


def first_line(error: Exception) -> str:
    """What went wrong, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Inside, transformers neither draws bars nor logs what is no error."""
    logging = import_library("transformers.utils").logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.set_verbosity_error()
    if bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


# The side that is not wanted, as small as it can be: it is made, and thrown away.
_SMALLEST = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 0}
_OTHER_SIDE = {
    "vision": {"text_config": {**_SMALLEST, "vocab_size": 8, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}},
    "text": {"vision_config": {**_SMALLEST, "image_size": 16, "patch_size": 16, "num_patches": 1}},
}


def make_side(table: dict[str, Any], side: Side) -> Any:
    """A network with fresh weights whose other side is as good as nothing; ConfigError when the table makes none."""
    return make_network(DUAL_ENCODERS[table["model_type"]].name, {**table, **_OTHER_SIDE[side]})


def _family(table: dict[str, Any], known: Sequence[str] | dict[str, Any]) -> str:
    name = str(table.get("model_type"))
    if name not in known:
        raise ConfigError(f"model_type is {name!r}; {choices(name, known)}")
    return name


def _tokenizer_in(folder: Path, *, vocabulary: int) -> Any:
    """The tokenizer in a folder, for a text tower that knows so many tokens.

    Of a folder without a tokenizer transformers 5 makes one of two tokens, to which all sentences are alike.
    """
    make: Callable[..., Any] = import_library("transformers").AutoTokenizer.from_pretrained
    try:
        with quiet_transformers():
            found = make(str(folder), trust_remote_code=False, local_files_only=True)
    except Exception as error:  # tokenizers and transformers raise of all kinds
        known = "entencepiece" in str(error) or "rotobuf" in str(error)
        hint = "; its words need pip install 'clipact[siglip]'" if known else ""
        raise ModelError(f"the tokenizer in {folder} cannot be read: {first_line(error)}{hint}") from error
    if 2 * len(found) < vocabulary:
        raise ModelError(
            f"the tokenizer in {folder} knows {len(found):,} tokens and the model {vocabulary:,}: its files are "
            "missing or another model's; save its own into the folder, with AutoProcessor.save_pretrained"
        )
    return found
