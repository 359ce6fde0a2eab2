"""Encode clips and sentences as unit vectors in one space, with two towers and a learnt scale.

The only place that normalises: single embeddings, means over the sentences of a label and over the views of a video.
Everything above compares embeddings by dot product.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from clipact.clip_spec import ClipSpec
from clipact.errors import ModelError
from clipact.models.towers.tower import ConditionsText, TextTower, VisualTower
from clipact.progress import ProgressBar, no_progress


def normalise_frames(
    frames: UInt8[np.ndarray, "t h w c"], spec: ClipSpec, *, device: torch.device | str = "cpu"
) -> Float[Tensor, "t c h w"]:
    """The frames on a 0..1 scale, less `spec.mean`, over `spec.std`, per channel, in float32.

    On a CPU bit for bit what torchvision's ToTensor and Normalize give. Bytes go to the device, not floats.
    """
    # A copy: frames may be read-only, and torch cannot say so.
    pixels = torch.from_numpy(np.array(frames)).to(device)
    video = rearrange(pixels, "t h w c -> t c h w").contiguous().to(torch.float32).div_(255)
    mean = torch.tensor(spec.mean, dtype=torch.float32, device=device)
    std = torch.tensor(spec.std, dtype=torch.float32, device=device)
    return video.sub_(rearrange(mean, "c -> c 1 1")).div_(rearrange(std, "c -> c 1 1"))


def prepare_views(
    views: Sequence[UInt8[np.ndarray, "t h w c"]], spec: ClipSpec, *, device: torch.device
) -> Float[Tensor, "k t c h w"]:
    """Normalise the frames of each view, which fit the spec."""
    return torch.stack([normalise_frames(frames, spec, device=device) for frames in views])


PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What autocast computes in, by the name that recipes and options give it."""


def computing(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Inside, modules on the device compute as a name in PRECISIONS says."""
    narrow = PRECISIONS[precision]
    return nullcontext() if narrow is None else torch.autocast(device.type, narrow)


def unit(features: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """The rows at unit length: what towers give becomes embeddings."""
    return F.normalize(features, dim=-1)


class DualEncoder(nn.Module):
    """A visual tower, a text tower and a learnt temperature (CLIP, arXiv 2103.00020, figure 3).

    log_scale  the logarithm of what multiplies cosines, a scalar parameter
    bias       added to scaled cosines, a scalar parameter, or None (SigLIP, arXiv 2303.15343, has one)
    precision  a name in PRECISIONS: in what `encode_video` and `embed_prompted` let the visual tower compute; weights,
               sentences and embeddings stay as they are
    """

    precision = "fp32"

    def __init__(
        self,
        visual: VisualTower,
        text: TextTower,
        *,
        log_scale: float = math.log(1 / 0.07),
        bias: float | None = None,
    ) -> None:
        super().__init__()
        if visual.dim != text.dim:
            raise ModelError(
                f"the visual tower gives {visual.dim} features, the text tower {text.dim}; "
                "both must end in the same number: give one a projection"
            )
        self.visual = visual
        self.text = text
        self.log_scale = nn.Parameter(torch.tensor(float(log_scale)))
        self.bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))

    @property
    def spec(self) -> ClipSpec:
        """How clips must be prepared for `encode_video`."""
        return self.visual.spec

    @property
    def dim(self) -> int:
        """The width d of an embedding."""
        return self.visual.dim

    @property
    def scale(self) -> Tensor:
        """What multiplies cosines to make logits, a positive scalar."""
        return self.log_scale.exp()

    def encode_video(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b d"]:
        """Unit-norm embeddings of normalised clips (see `spec`); a picture is a clip of one frame."""
        with self.looking():
            features = self.visual(video)
        return unit(features if self.precision == "fp32" else features.float())

    def looking(self) -> AbstractContextManager[object]:
        """Inside, the visual tower or a part of it computes as `precision` says."""
        return computing(self.precision, self.log_scale.device)

    @property
    def text_depends_on_video(self) -> bool:
        """Whether sentences have embeddings only beside a clip (X-CLIP): see `embed_prompted`."""
        return isinstance(self.visual, ConditionsText)

    def text_needs_video(self) -> ModelError:
        """What is raised where a sentence is asked for by itself."""
        return ModelError(
            f"with {type(self.visual).__name__} a sentence's embedding depends on the video beside it: it cannot be "
            "kept, searched or trained by itself; `clipact classify` is what can be done with it"
        )

    def encode_text(
        self, sentences: Sequence[str], *, batch_size: int = 256, progress: ProgressBar = no_progress
    ) -> Float[Tensor, "n d"]:
        """Unit-norm embeddings of sentences, encoded `batch_size` at a time, each as if it were alone.

        `progress` is given the batches. ModelError when sentences have no embedding without a clip.
        """
        if self.text_depends_on_video:
            raise self.text_needs_video()
        return unit(self.text_features(sentences, batch_size=batch_size, progress=progress))

    def text_features(
        self, sentences: Sequence[str], *, batch_size: int = 256, progress: ProgressBar = no_progress
    ) -> Float[Tensor, "n d"]:
        """What the text tower makes of each sentence, not normalised; the rest is as for `encode_text`."""
        device = self.log_scale.device
        # Sentences of like length share a batch, so that little is spent on padding.
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        rows: list[Tensor] = []
        starts = range(0, len(order), batch_size)
        for start in progress(starts, len(starts), "encoding sentences"):
            ids = self.text.tokenize([sentences[i] for i in order[start : start + batch_size]])
            rows.append(self.text(ids.to(device)))
        if not rows:
            return self.log_scale.new_zeros((0, self.dim))
        place = torch.empty(len(order), dtype=torch.long)
        place[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(rows)[place.to(device)]

    def embed_groups(
        self, sentences: Sequence[str], groups: Sequence[int], *, batch_size: int = 256
    ) -> Float[Tensor, "n d"]:
        """One unit vector a group: the mean of its sentences' embeddings, normalised again.

        `groups[i]` is the group, 0..n-1, of `sentences[i]`; every group has at least one sentence
        (prompt ensembling in embedding space, arXiv 2103.00020, section 3.1.4).
        """
        if len(sentences) != len(groups):
            raise ModelError(f"{len(sentences)} sentences but {len(groups)} group numbers")
        unique = list(dict.fromkeys(sentences))
        row = {sentence: i for i, sentence in enumerate(unique)}
        embeddings = self.encode_text(unique, batch_size=batch_size)
        index = torch.tensor(groups, dtype=torch.long)
        count = int(index.max()) + 1 if len(groups) else 0
        if set(groups) != set(range(count)):
            raise ModelError(f"group numbers must be 0..{count - 1}, each with a sentence at least")
        sums = embeddings.new_zeros((count, self.dim))
        sums.index_add_(0, index.to(sums.device), embeddings[[row[s] for s in sentences]])
        return unit(sums)

    def embed_prompted(
        self, video: Float[Tensor, "b t c h w"], features: Float[Tensor, "n d"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b n d"]]:
        """Unit-norm embeddings of clips, and of sentences beside each of them, where `text_depends_on_video`.

        `features` are what `text_features` gives.
        """
        assert isinstance(self.visual, ConditionsText)
        with self.looking():
            return self.embed_beside(self.visual.context(video), features)

    def embed_beside(
        self, context: Float[Tensor, "b m"], features: Float[Tensor, "n d"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b n d"]]:
        """As `embed_prompted`, from the context that the visual tower gives of each clip."""
        assert isinstance(self.visual, ConditionsText)
        with self.looking():
            clips, sentences = self.visual.prompted(context, features)
        if self.precision != "fp32":
            clips, sentences = clips.float(), sentences.float()
        return unit(clips), torch.stack([unit(beside) for beside in sentences])

    def logits(self, video: Float[Tensor, "b d"], text: Float[Tensor, "n d"]) -> Float[Tensor, "b n"]:
        """scale x cosine (+ bias) of each clip with each sentence, from their embeddings."""
        scores = self.scale * video @ text.T
        return scores if self.bias is None else scores + self.bias
