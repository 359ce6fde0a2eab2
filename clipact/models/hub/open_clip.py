"""Adapt open_clip's models (https://github.com/mlfoundations/open_clip) to an image tower and a text tower.

open_clip is imported inside functions: that costs 4.5 s. Nothing in a model's files is executed: weights are
safetensors, or pickles that hold tensors alone, and a tokenizer brings no code of its own. Files are
found by `open_clip_source`.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn

from clipact.clip_spec import ClipSpec
from clipact.errors import ConfigError, ModelError, import_library
from clipact.models.download import hub_file
from clipact.models.hub.open_clip_source import OpenClipSource
from clipact.models.hub.timm import has_fixed_size, run_image_network
from clipact.models.nn.attention import make_attention_inputs_contiguous
from clipact.models.nn.temporal_shift import residual_branches
from clipact.models.towers.tower import HasFeatureMaps, ImageTower, SkipInit, SupportsTemporalShift, TextTower

Tokenizer = Callable[[list[str]], Tensor]


class OpenClipImage(ImageTower, SupportsTemporalShift, HasFeatureMaps):
    """open_clip's visual network: what encode_image gives before it is normalised."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """open_clip's own tables.

        model       of the architecture; its embed_dim, vision_cfg and quick_gelu count
        preprocess  where the preparation of pictures differs from open_clip's default
        """

        model: dict[str, Any]
        preprocess: dict[str, Any] = field(default_factory=dict)

    def __init__(self, config: Config, *, network: nn.Module | None = None) -> None:
        """`network` is the one that the tables describe, if it is made already."""
        super().__init__()
        self.config = config
        self.network = make_attention_inputs_contiguous(network or _make(config.model, "vision_cfg"))
        self.spec = open_clip_spec(self.network, config.preprocess)
        self.dim = int(config.model["embed_dim"])

    @property
    def residual_branches(self) -> list[tuple[nn.Module, int]]:
        """The network's, where `clipact.models.nn.temporal_shift` lists it; ConfigError where not."""
        return residual_branches(self.network if self._timms is None else self._timms)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The features of each picture; ModelError for a size that the network does not take.

        Networks of open_clip's own have positions for one size; of timm's in it, the convolutional take others.
        """
        fixed = self._timms is None or has_fixed_size(self._timms)
        return _pooled(run_image_network(self.network, images, size=self.spec.size, fixed=fixed))

    @property
    def map_dim(self) -> int:
        """The width of a token; ConfigError for what is no vision transformer of open_clip's own."""
        if not isinstance(self.network, import_library("open_clip.transformer").VisionTransformer):
            raise ConfigError(
                f"a {type(self.network).__name__} gives no vector a place; vision transformers of open_clip's own do, "
                "such as ViT-B-32"
            )
        return int(self.network.ln_post.normalized_shape[0])

    def maps(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h2 w2 f"]:
        """The tokens of each picture's patches behind the last block, normalised."""
        network: Any = self.network
        seen = network.forward_intermediates(
            images, indices=1, normalize_intermediates=True, intermediates_only=True, output_fmt="NCHW"
        )
        return rearrange(seen["image_intermediates"][-1], "b f h w -> b h w f")

    @property
    def _timms(self) -> nn.Module | None:
        """The network of timm's that open_clip took, if it did."""
        return getattr(self.network, "trunk", None)


class OpenClipText(TextTower):
    """open_clip's text network and tokenizer: what encode_text gives before it is normalised.

    The tokenizer is made when the first sentence comes, or by `load_tokenizer`; ModelError where it cannot be had.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """open_clip's own table of the architecture; its embed_dim, text_cfg and quick_gelu count."""

        model: dict[str, Any]

    def __init__(
        self,
        config: Config,
        tokenizer_file: Path,
        *,
        network: nn.Module | None = None,
        make_tokenizer: Callable[[], Tokenizer] | None = None,
    ) -> None:
        """`network` and `make_tokenizer` are a model's that is at hand; else `tokenizer_file`'s folder counts."""
        super().__init__()
        self.config = config
        self.network = make_attention_inputs_contiguous(network or _make(config.model, "text_cfg"))
        self.dim = int(config.model["embed_dim"])
        self._make_tokenizer = make_tokenizer or (
            lambda: _tokenizer_in(tokenizer_file.parent, config.model["text_cfg"])
        )
        self._tokenizer: Tokenizer | None = None

    def load_tokenizer(self) -> Tokenizer:
        """open_clip's own tokenizer, made the first time."""
        if self._tokenizer is None:
            self._tokenizer = self._make_tokenizer()
        return self._tokenizer

    def tokenize(self, sentences: Sequence[str]) -> Int[Tensor, "b l"]:
        """Token ids, padded to the model's own length and cut there."""
        return self.load_tokenizer()(list(sentences))

    def forward(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b d"]:
        """The features of each sentence."""
        return _pooled(self.network(ids))

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer's files; CLIP's own comes with open_clip and needs none."""
        tokenizer: Any = self.load_tokenizer()
        if self.config.model["text_cfg"].get("hf_tokenizer_name"):
            tokenizer.tokenizer.save_pretrained(folder)
        elif type(tokenizer).__name__ != "SimpleTokenizer":
            raise ModelError(f"a model with open_clip's {type(tokenizer).__name__} cannot be saved as a clipact folder")


@dataclass(frozen=True, kw_only=True)
class OpenClipParts:
    """An open_clip model taken apart, in evaluation mode on the CPU; log_scale and bias as DualEncoder wants them."""

    image: OpenClipImage
    text: OpenClipText
    log_scale: float
    bias: float | None


def load_open_clip(source: OpenClipSource) -> OpenClipParts:
    """The model's towers with their weights; ModelError when the files do not make one."""
    model = _construct(source)
    _fill(model, source.weights)
    bias = model.logit_bias
    shared = {key: source.config[key] for key in ("embed_dim", "quick_gelu") if key in source.config}
    pictures = OpenClipImage.Config(
        model=shared | {"vision_cfg": source.config["vision_cfg"]}, preprocess=source.preprocess
    )
    words = OpenClipText.Config(model=shared | {"text_cfg": source.config["text_cfg"]})
    return OpenClipParts(
        image=OpenClipImage(pictures, network=model.visual).eval(),
        text=OpenClipText(words, Path(), network=model.text, make_tokenizer=lambda: _make_tokenizer(source)).eval(),
        log_scale=model.logit_scale.item(),
        bias=None if bias is None else bias.item(),
    )


def open_clip_spec(visual: nn.Module, preprocess: dict[str, Any]) -> ClipSpec:
    """How open_clip prepares a picture for this network: its defaults, changed by `preprocess`."""
    transform = import_library("open_clip.transform")
    chosen = transform.merge_preprocess_dict(transform.PreprocessCfg(), preprocess)
    size = getattr(visual, "image_size", chosen["size"])  # the network knows better than its card
    return ClipSpec(
        size=(size, size) if isinstance(size, int) else tuple(size),
        resize=chosen["resize_mode"],
        interpolation="bilinear" if chosen["interpolation"] == "bilinear" else "bicubic",  # it knows no third
        mean=tuple(map(float, chosen["mean"])),
        std=tuple(map(float, chosen["std"])),
        fill=chosen["fill_color"],
    )


def _construct(source: OpenClipSource) -> Any:
    open_clip = import_library("open_clip")

    config = deepcopy(source.config)
    # The class whose two towers stand apart serves all; it is also what takes older checkpoints' names.
    config.pop("custom_text", None)
    kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    try:
        # Only our own file brings weights: no parts from elsewhere.
        config["vision_cfg"]["timm_model_pretrained"] = False
        config["text_cfg"]["hf_model_pretrained"] = False
        if language_model := config["text_cfg"].get("hf_model_name"):
            hub_file(language_model, "config.json")
        with SkipInit():
            return kind(**config)
    except (TypeError, KeyError, ValueError, RuntimeError, AssertionError, OSError) as error:
        raise ModelError(
            f"open_clip {open_clip.__version__} cannot make {source.name}: {_first_line(error)}"
        ) from error


def _make(config: dict[str, Any], part: str) -> nn.Module:
    """One network alone, with fresh weights."""
    open_clip = import_library("open_clip")
    settings = deepcopy(config[part])
    make = {"vision_cfg": open_clip.model._build_vision_tower, "text_cfg": open_clip.model._build_text_tower}[part]
    try:
        settings["timm_model_pretrained" if part == "vision_cfg" else "hf_model_pretrained"] = False
        if language_model := settings.get("hf_model_name"):
            hub_file(language_model, "config.json")
        return cast(nn.Module, make(config["embed_dim"], settings, config.get("quick_gelu", False)))
    except (TypeError, KeyError, ValueError, RuntimeError, AssertionError, OSError) as error:
        raise ModelError(
            f"open_clip {open_clip.__version__} cannot make the network of {part}: {_first_line(error)}"
        ) from error


def _fill(model: Any, weights: Path) -> None:
    open_clip = import_library("open_clip")

    if weights.suffix != ".safetensors":
        check_holds_tensors_only(weights)
    try:
        open_clip.load_checkpoint(model, str(weights), strict=True, weights_only=True)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{weights} is damaged or no safetensors file: {error}") from error
    except Exception as error:  # whatever open_clip stumbles over in a file that holds another model
        raise ModelError(f"{weights} does not fit the architecture: {_first_line(error)}") from error


def check_holds_tensors_only(weights: Path) -> None:
    """ModelError unless the pickle holds tensors alone; the tensors themselves are not read.

    open_clip asks torch for weights only, but asks again without when a file provokes a TypeError, and torch before
    2.6 then runs what the file says.
    """
    try:
        torch.load(weights, map_location="meta", weights_only=True)
    except Exception as error:  # a hostile file can provoke any
        raise ModelError(
            f"{weights} is damaged or holds more than tensors, which could only be read by running code from it; "
            "a .safetensors file of the same model is safe"
        ) from error


def _make_tokenizer(source: OpenClipSource) -> Tokenizer:
    open_clip = import_library("open_clip")

    hugging_face = source.config["text_cfg"].get("hf_tokenizer_name")
    if hugging_face and source.folder is None:
        hub_file(hugging_face, "tokenizer_config.json")
    # A model's own configuration may ask for a tokenizer's code to be run; this overrules it.
    options = {"trust_remote_code": False} if hugging_face else {}
    try:
        return cast(Tokenizer, open_clip.get_tokenizer(source.name, **options))
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise ModelError(f"the tokenizer of {source.name} cannot be read: {_first_line(error)}") from error


def _tokenizer_in(folder: Path, text: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a clipact folder: its files, or open_clip's own table of CLIP's words."""
    tokenizer = import_library("open_clip.tokenizer")
    length, options = text.get("context_length", 77), text.get("tokenizer_kwargs", {})
    try:
        if text.get("hf_tokenizer_name"):
            mode = text.get("tokenizer_mode")
            made = tokenizer.HFTokenizer(
                str(folder), context_length=length, tokenizer_mode=mode, **{**options, "trust_remote_code": False}
            )
        else:
            made = tokenizer.SimpleTokenizer(context_length=length, **options)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise ModelError(f"the tokenizer in {folder} cannot be read: {_first_line(error)}") from error
    return cast(Tokenizer, made)


def _pooled(features: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    return features[0] if isinstance(features, tuple) else features  # CoCa's towers give their tokens too


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
