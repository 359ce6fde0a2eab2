"""A name becomes a loaded model.

    mini                           the embedded one
    PATH                           a clipact model's folder
    open_clip:ARCH/TAG             ViT-B-32/openai, fetched from a hub the first time
    open_clip:ARCH@FILE            an architecture with weights from a file
    open_clip:hf-hub:ORG/NAME      an open_clip repository on a hub
    open_clip:local-dir:FOLDER     a folder with the same files
    transformers:ORG/NAME          CLIP, SigLIP, SigLIP 2 or X-CLIP of transformers, on a hub
    transformers:FOLDER            a folder with the same files

open_clip's and transformers' models, but for X-CLIP, see a clip frame by frame; the mean of its frames' features is the
clip's. Nothing is fetched for a name of the first two kinds, ARCH@FILE or a folder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64

from clipact.clip_spec import ClipSpec
from clipact.engines.clip_encoder import ClipEncoder
from clipact.engines.engine import Engine
from clipact.engines.torch_clip_encoder import make_clip_encoder
from clipact.errors import UsageError, choices
from clipact.models import checkpoint
from clipact.models.checkpoint import checkpoint_folder, read_config, weights_hash
from clipact.models.dual_encoder import DualEncoder
from clipact.models.hub import open_clip as from_open_clip
from clipact.models.hub import open_clip_source, transformers_source, xclip
from clipact.models.hub import transformers as from_transformers
from clipact.models.towers.frame_aggregator import FrameAggregator
from clipact.models.towers.tower import VisualTower
from clipact.progress import ProgressBar, no_progress

MODEL_NAMES = (
    "mini",
    "FOLDER",
    "open_clip:ViT-B-32/openai",
    "open_clip:ARCH@FILE",
    "open_clip:hf-hub:ORG/NAME",
    "open_clip:local-dir:FOLDER",
    "transformers:ORG/NAME",
    "transformers:FOLDER",
)

_PRECISIONS = ("auto", "fp32", "bf16")  # of dual_encoder.PRECISIONS; fp16 is for training on CUDA


@dataclass(frozen=True, kw_only=True)
class Model(Engine):
    """A model of torch, ready for use; its facts are those of `Engine`.

    encoder  in evaluation mode, on its device
    """

    name: str
    encoder: DualEncoder
    key: str
    trained_on: tuple[str, ...]
    license: str = ""
    folder: Path | None = None
    labels: tuple[str, ...] = ()

    @property
    def spec(self) -> ClipSpec:
        """How clips are prepared."""
        return self.encoder.spec

    @property
    def dim(self) -> int:
        """The width d of an embedding."""
        return self.encoder.dim

    @property
    def scale(self) -> float:
        """What multiplies cosines to make logits."""
        return float(self.encoder.scale.detach())

    @property
    def bias(self) -> float | None:
        """What is added to scaled cosines; None for nothing."""
        return None if self.encoder.bias is None else float(self.encoder.bias.detach())

    @property
    def precision(self) -> str:
        """What clips are computed in."""
        return self.encoder.precision

    @property
    def device(self) -> str:
        """Where it computes."""
        return str(self.encoder.log_scale.device)

    @property
    def text_depends_on_video(self) -> bool:
        """Whether sentences have embeddings only beside a clip."""
        return self.encoder.text_depends_on_video

    @property
    def order_free(self) -> bool:
        """Whether the order of a clip's frames cannot change its embedding."""
        return self.encoder.visual.order_free

    def tokenize(self, sentences: Sequence[str]) -> Int64[np.ndarray, "n l"]:
        """Return the token ids of sentences as the text tower reads them, cut at its limit."""
        return self.encoder.text.tokenize(sentences).numpy().astype(np.int64)

    @torch.inference_mode()
    def encode_text(
        self, sentences: Sequence[str], *, progress: ProgressBar = no_progress
    ) -> Float32[np.ndarray, "n d"]:
        """Encode sentences as unit vectors; ModelError when they have no embedding without a clip."""
        return self.encoder.encode_text(sentences, progress=progress).float().cpu().numpy()

    @torch.inference_mode()
    def text_features(
        self, sentences: Sequence[str], *, progress: ProgressBar = no_progress
    ) -> Float32[np.ndarray, "n d"]:
        """Encode sentences as features, not normalised."""
        return self.encoder.text_features(sentences, progress=progress).float().cpu().numpy()

    @torch.inference_mode()
    def prompt(
        self, context: Float32[np.ndarray, "k m"], text: Float32[np.ndarray, "n d"]
    ) -> tuple[Float32[np.ndarray, "k d"], Float32[np.ndarray, "k n d"]]:
        """Return unit embeddings of clips, and of sentences beside each of them."""
        device = self.encoder.log_scale.device
        clips, beside = self.encoder.embed_beside(
            torch.from_numpy(context).to(device), torch.from_numpy(text).to(device)
        )
        return clips.cpu().numpy(), beside.cpu().numpy()

    def clip_encoder(
        self, spec: ClipSpec | None = None, *, clips: int = 1, crops: int = 1, decoder: str = "pyav"
    ) -> ClipEncoder:
        """Return what encodes clips; see `clipact.engines.torch_clip_encoder`."""
        return make_clip_encoder(self.encoder, self.key, spec=spec, clips=clips, crops=crops, decoder=decoder)


def load_model(name: str, *, device: str = "auto", precision: str = "fp32", defer_text: bool = False) -> Model:
    """The model of that name (see above) on a device (see `pick_device`).

    precision  "fp32", or "bf16": clips are seen in 16 bits (autocast), sentences as ever. Embeddings are then near to
               those of fp32, not the same; many towers take half the time on a CPU with bf16 in its instructions.
               "auto": as `pick_precision` says

    With `defer_text` nothing is done for sentences before the first one: a folder's text weights stay on disk, and
    another model's tokenizer is not made (its text network is in memory, though it never runs).
    UsageError for a name that means nothing, ModelError for files that hold no model, DownloadError for a hub.
    """
    precision = pick_precision(name, precision, device=device)
    place, folder = pick_device(device), find_folder(name)
    if folder is not None:
        model = _load_folder(name, folder, defer_text=defer_text)
    else:
        family, _, rest = name.partition(":")
        model = _LIBRARIES[family](name, rest, defer_text=defer_text)
    model.encoder.to(place)
    model.encoder.precision = precision
    return model


def find_folder(name: str) -> Path | None:
    """The folder of a clipact model, None for a name of another library's kind; nothing is loaded or fetched.

    UsageError for a name that means nothing: of several models the last is known to be meant before the first has run.
    """
    family, _, rest = name.partition(":")
    if family in _LIBRARIES and rest:
        return None
    if name and (folder := checkpoint_folder(name)) is not None:
        return folder
    raise UsageError(f"no model is called {name!r} and no such folder exists; {choices(name, MODEL_NAMES)}")


def trained_on(name: str) -> tuple[str, ...]:
    """List the data sets that a model names as its training data, without loading it; a hub's is fetched."""
    if (folder := find_folder(name)) is not None:
        return read_config(folder).trained_on
    family, _, rest = name.partition(":")
    return _SOURCES[family](rest).trained_on


def pick_device(name: str) -> torch.device:
    """The device of that name; for "auto" a GPU (cuda, else mps) when there is one. UsageError when it is absent."""
    here = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if here:
        here.insert(0, "cuda")
    if torch.backends.mps.is_available():
        here.append("mps")
    here.append("cpu")
    if name == "auto":
        return torch.device(here[0])
    if name not in here:
        raise UsageError(f"this machine has no device {name!r}; {choices(name, ['auto', *here])}")
    return torch.device(name)


def pick_precision(name: str, precision: str = "auto", *, device: str = "auto") -> str:
    """What the model of that name computes in: `precision`, or, for "auto", what is quick and as good.

    That is "bf16" for a clipact model that learnt in it, on a CPU with instructions for it, and "fp32" for all else.
    UsageError for a precision, a device or a name that means nothing. Nothing is loaded or fetched.
    """
    if precision not in _PRECISIONS:
        raise UsageError(f"precision is {precision!r}; {choices(precision, _PRECISIONS)}")
    place, folder = pick_device(device), find_folder(name)
    if precision != "auto":
        return precision
    learnt_in_it = folder is not None and read_config(folder).precision == "bf16"
    return "bf16" if learnt_in_it and place.type == "cpu" and _cpu_computes_bf16() else "fp32"


def _cpu_computes_bf16() -> bool:
    """Whether the CPU has instructions for bf16; without them it takes longer than fp32. An older torch cannot tell."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def _load_folder(name: str, folder: Path, *, defer_text: bool) -> Model:
    config = read_config(folder)
    return Model(
        name=name,
        encoder=checkpoint.load_checkpoint(folder, defer_text=defer_text),
        key=weights_hash(folder),
        trained_on=config.trained_on,
        license=config.license,
        folder=folder,
        labels=config.labels,
    )


def _load_open_clip(name: str, rest: str, *, defer_text: bool) -> Model:
    source = open_clip_source.find_open_clip_source(rest)
    parts = from_open_clip.load_open_clip(source)
    return _joined(name, source, FrameAggregator(parts.image), parts, defer_text=defer_text)


def _load_transformers(name: str, rest: str, *, defer_text: bool) -> Model:
    source = transformers_source.find_transformers_source(rest)
    if source.family == "xclip":
        whole = xclip.load_xclip(source)
        return _joined(name, source, whole.visual, whole, defer_text=defer_text)
    parts = from_transformers.load_transformers(source)
    return _joined(name, source, FrameAggregator(parts.image), parts, defer_text=defer_text)


def _joined(
    name: str,
    source: open_clip_source.OpenClipSource | transformers_source.TransformersSource,
    visual: VisualTower,
    parts: from_open_clip.OpenClipParts | from_transformers.TransformersParts | xclip.XClipParts,
    *,
    defer_text: bool,
) -> Model:
    if not defer_text:
        parts.text.load_tokenizer()
    encoder = DualEncoder(visual, parts.text, log_scale=parts.log_scale, bias=parts.bias)
    return Model(
        name=name,
        encoder=encoder.eval(),
        key=source.key(),
        trained_on=source.trained_on,
        license=source.license,
    )


_LIBRARIES = {"open_clip": _load_open_clip, "transformers": _load_transformers}
_SOURCES: dict[str, Callable[[str], open_clip_source.OpenClipSource | transformers_source.TransformersSource]] = {
    "open_clip": open_clip_source.find_open_clip_source,
    "transformers": transformers_source.find_transformers_source,
}
