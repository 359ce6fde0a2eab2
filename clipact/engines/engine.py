"""The interface of whatever runs a model: frames and sentences in, NumPy arrays out.

Classifiers, evaluations and the embedding engine know a model by this interface alone; importing it imports no torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from clipact.clip_spec import ClipSpec
from clipact.engines.clip_encoder import ClipEncoder
from clipact.errors import ModelError
from clipact.progress import ProgressBar, no_progress


class Engine(ABC):
    """A model that is ready for use.

    name        as the user named it
    key         a sha256 of the weights and of what decides how they are used: text embeddings are cached under it
    trained_on  data sets whose samples shaped the weights, () when unknown
    license     as its files say; "" where they do not
    folder      where a clipact model lies: the list of files that it learnt from is there, if there is one
    labels      all that a supervised model can say; () for one that knows words
    """

    name: str
    key: str
    trained_on: tuple[str, ...]
    license: str
    folder: Path | None
    labels: tuple[str, ...]

    @property
    @abstractmethod
    def spec(self) -> ClipSpec:
        """How clips are prepared."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """The width d of an embedding."""

    @property
    @abstractmethod
    def scale(self) -> float:
        """What multiplies cosines to make logits."""

    @property
    @abstractmethod
    def bias(self) -> float | None:
        """What is added to scaled cosines; None for nothing."""

    @property
    @abstractmethod
    def precision(self) -> str:
        """What clips are computed in: fp32, bf16 or fp16."""

    @property
    @abstractmethod
    def device(self) -> str:
        """Where it computes: cpu, cuda, cuda:1, mps."""

    @property
    @abstractmethod
    def text_depends_on_video(self) -> bool:
        """Whether sentences have embeddings only beside a clip (X-CLIP): see `prompt`."""

    @property
    @abstractmethod
    def order_free(self) -> bool:
        """Whether the order of a clip's frames cannot change its embedding."""

    @abstractmethod
    def tokenize(self, sentences: Sequence[str]) -> Int64[np.ndarray, "n l"]:
        """Return the token ids of sentences as the text tower reads them, cut at its limit."""

    def text_needs_video(self) -> ModelError:
        """Return the error for where a sentence is asked for by itself."""
        return ModelError(
            f"with {self.name} a sentence's embedding depends on the video beside it: it cannot be kept, searched or "
            "trained by itself; `clipact classify` is what can be done with it"
        )

    @abstractmethod
    def encode_text(
        self, sentences: Sequence[str], *, progress: ProgressBar = no_progress
    ) -> Float32[np.ndarray, "n d"]:
        """Encode sentences as unit vectors; ModelError when they have no embedding without a clip."""

    @abstractmethod
    def text_features(
        self, sentences: Sequence[str], *, progress: ProgressBar = no_progress
    ) -> Float32[np.ndarray, "n d"]:
        """Encode sentences as features, not normalised: what `prompt` takes."""

    @abstractmethod
    def prompt(
        self, context: Float32[np.ndarray, "k m"], text: Float32[np.ndarray, "n d"]
    ) -> tuple[Float32[np.ndarray, "k d"], Float32[np.ndarray, "k n d"]]:
        """Return unit embeddings of clips, and of sentences beside each of them, where `text_depends_on_video`.

        Args:
            context: What the clip encoder gives for each clip.
            text: What `text_features` gives.
        """

    @abstractmethod
    def clip_encoder(
        self, spec: ClipSpec | None = None, *, clips: int = 1, crops: int = 1, decoder: str = "pyav"
    ) -> ClipEncoder:
        """Return what encodes `clips` x `crops` clips of each video, prepared as `spec` (the model's own) says."""

    def logits(self, clips: Float32[np.ndarray, "b d"], text: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "b n"]:
        """Return scale x cosine (+ bias) of each clip with each sentence, from their unit embeddings."""
        scores = (np.float32(self.scale) * clips) @ text.T
        return scores if self.bias is None else scores + np.float32(self.bias)
