"""Zero-shot classification: a clip is named by the label whose sentences lie nearest to it.

The central object. It joins a model (zoo), words (prompts), video and the text cache; each of them can be had alone.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from clipact.cache import Cache, content_key
from clipact.classify.base import Prediction, Scored, VideoClassifier, agreement_of
from clipact.classify.text_classifier import TextClassifier, make_text_classifier, wording_key
from clipact.clip_spec import ClipSpec
from clipact.embed.clip_embedding import embed_views, mean_view, prepare_views
from clipact.errors import CacheError, UsageError
from clipact.models import zoo
from clipact.progress import ProgressBar, no_progress
from clipact.prompts import LabelSet, PromptSet


class ZeroShotClassifier(VideoClassifier):
    """Names the action in a clip by words, with no training on them; satisfies `Recognizer`.

        classifier = ZeroShotClassifier.load("mini", labels=["drink", "read"])
        print(classifier.classify("video.mp4"))

    model    what `clipact.models.zoo.load` gives
    labels   phrases, a LabelSet, or the name of a shipped set ("kinetics400")
    prompts  a PromptSet, or the name or path of one: the sentences into which labels are put
    frames   frames a clip, instead of the number that the model was made for
    spec     how clips are prepared, instead of the model's own way; `frames` counts still
    clips    clips a video, spread over it; their embeddings are averaged
    decoder  a name in `clipact.video.load.DECODERS`: pyav or torchcodec, which give the same frames
    store    where text embeddings are kept between runs; the default folder when None
    progress is given the batches of sentences to encode, to show how far it is
    words    what clips are compared with, when it was computed before for these labels and prompts
    """

    def __init__(
        self,
        model: zoo.Model,
        labels: LabelSet | Sequence[str] | str,
        *,
        prompts: PromptSet | str = "action",
        frames: int | None = None,
        clips: int = 1,
        spec: ClipSpec | None = None,
        decoder: str = "pyav",
        cache: Cache | None = None,
        progress: ProgressBar = no_progress,
        words: TextClassifier | None = None,
    ) -> None:
        super().__init__((spec or model.encoder.spec).with_frames(frames), clips=clips, decoder=decoder)
        self.model = model
        self.label_set = labels if isinstance(labels, LabelSet) else LabelSet.of_any(labels)
        self.prompts = prompts if isinstance(prompts, PromptSet) else PromptSet.load(prompts)
        # One of the two: vectors to compare clips with, or the features of each sentence, for a clip to change.
        self._text: TextClassifier | None = None
        self._unprompted: dict[str, Float[Tensor, " d"]] = {}
        if model.encoder.text_depends_on_video:
            self._unprompted = self._text_features(progress)
        else:
            self._text = words or embed_labels(
                model, self.label_set, self.prompts, cache=cache or Cache(), progress=progress
            )

    @classmethod
    def load(
        cls,
        model: str = "mini",
        *,
        labels: LabelSet | Sequence[str] | str,
        device: str = "auto",
        precision: str = "auto",
        **options: Any,
    ) -> "ZeroShotClassifier":
        """A classifier from a model's name (see `clipact.models.zoo.load`); `options` as for the constructor."""
        return cls(zoo.load_model(model, device=device, precision=precision, defer_text=True), labels, **options)

    @property
    def labels(self) -> tuple[str, ...]:
        """What it chooses from, as they were given."""
        return self.label_set.labels

    @property
    def text_embeddings(self) -> Float[Tensor, "n d"]:
        """One unit vector a label: the mean over its sentences, normalised again. UsageError when it has several."""
        if not self.words.one_each or self.words.weigh:
            raise UsageError(f"with the prompts {self.prompts.name!r} a label has several vectors: ask `logits`")
        return self.words.rows[0]

    @property
    def words(self) -> TextClassifier:
        """What clips are compared with; ModelError where that depends on the clip."""
        if self._text is None:
            raise self.model.encoder.text_needs_video()
        return self._text

    def logits(self, clips: Float[Tensor, "b d"]) -> Float[Tensor, "b n"]:
        """The logits of each label for embeddings of clips."""
        return self.words.logits(self.model.encoder, clips)

    def with_weights(self, weights: Float[Tensor, " p"]) -> "ZeroShotClassifier":
        """The same with its templates weighted; see `clipact.classify.text_classifier`."""
        return ZeroShotClassifier(
            self.model,
            self.label_set,
            prompts=replace(self.prompts, weights=tuple(weights.tolist())),
            clips=self.clips,
            spec=self.spec,
            decoder=self.decoder,
            words=self.words.weighted(weights.to(self.words.rows.device)),
        )

    def answer(self, views: Sequence[UInt8[np.ndarray, "t h w c"]]) -> Prediction:
        """The prediction for the views of one video: a softmax over all labels, and how far the views agree."""
        logits, each = self.compare(views)
        scores = logits.float().softmax(0).cpu()
        order = scores.argsort(descending=True, stable=True).tolist()
        values = scores.tolist()
        return Prediction(
            ranked=tuple(Scored(self.labels[i], values[i]) for i in order),
            model=self.model.name,
            prompts=self.prompts.name,
            agreement=agreement_of(each, self.labels, answer=self.labels[order[0]]),
        )

    @torch.inference_mode()
    def compare(
        self, views: Sequence[UInt8[np.ndarray, "t h w c"]]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "k n"]]:
        """The logits of a video from the frames of its views, and those of each view by itself.

        The video's are of the mean of the views' embeddings; where words depend on the clip, the mean of the views'.
        """
        encoder = self.model.encoder
        if not self._unprompted:
            embeddings = embed_views(encoder, views, self.spec)
            return self.logits(mean_view(embeddings))[0], self.logits(embeddings)
        video = prepare_views(views, self.spec, device=encoder.log_scale.device)
        each = torch.stack([self._compare_prompted(clip) for clip in video])
        return each.mean(0), each

    def _compare_prompted(self, clip: Float[Tensor, "t c h w"]) -> Float[Tensor, " n"]:
        embedding, beside = self.model.encoder.embed_prompted(clip[None], torch.stack([*self._unprompted.values()]))
        vectors = dict(zip(self._unprompted, beside[0], strict=True))

        def encode(sentences: Sequence[str]) -> Tensor:
            return torch.stack([vectors[sentence] for sentence in sentences])

        return make_text_classifier(encode, self.label_set, self.prompts).logits(self.model.encoder, embedding)[0]

    @torch.inference_mode()
    def _text_features(self, progress: ProgressBar) -> dict[str, Float[Tensor, " d"]]:
        sentences = list(dict.fromkeys(prompt.text for prompt in self.prompts.fill(self.label_set)))
        return dict(zip(sentences, self.model.encoder.text_features(sentences, progress=progress), strict=True))


@torch.inference_mode()
def embed_labels(
    model: zoo.Model, labels: LabelSet, prompts: PromptSet, *, cache: Cache, progress: ProgressBar = no_progress
) -> TextClassifier:
    """What clips are compared with, on the model's device, from the store when it was computed before.

    The key holds the weights' hash, the wording and every sentence with its place: anything that changes a vector
    changes it. `progress` is as for `DualEncoder.encode_text`.
    """
    key = content_key("label vectors 2", model.key, wording_key(labels, prompts))
    device = model.encoder.log_scale.device
    if (kept := cache.read("text", key)) is not None:
        return TextClassifier(
            rows=torch.from_numpy(kept["rows"]).to(device),
            owner=torch.from_numpy(kept["owner"]).to(device),
            labels=len(labels),
            weigh=prompts.awaits_weights,
        )
    vectors = make_text_classifier(partial(model.encoder.encode_text, progress=progress), labels, prompts)
    try:
        cache.write("text", key, {"rows": vectors.rows.float().cpu().numpy(), "owner": vectors.owner.cpu().numpy()})
    except CacheError as error:  # a cache that cannot be written costs time, not the answer
        warnings.warn(str(error), stacklevel=2)
    return vectors
