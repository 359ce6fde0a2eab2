"""Zero-shot classification: a clip is named by the label whose sentences' embeddings are nearest to its own."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Float, Float32

from clipact.cache import Cache
from clipact.classify.base import VideoClassifier
from clipact.classify.embedding_recognizer import RecognizerFacts
from clipact.classify.prediction import Prediction, agreement_of
from clipact.classify.template_weights import template_weights
from clipact.classify.text_classifier import (
    TextClassifier,
    embed_labels,
    log_mean_softmax,
    make_text_classifier,
    wording_key,
)
from clipact.clip_spec import Averaging, ClipSpec
from clipact.engines.engine import Engine
from clipact.engines.vectors import mean_clip, softmax, unit
from clipact.errors import UsageError
from clipact.progress import ProgressBar, no_progress
from clipact.prompts import LabelDetails, LabelSet, PromptSet

_CLIPS_AT_ONCE = 256  # x 48 templates x 700 labels: 34 MB of logits


class ZeroShotClassifier(VideoClassifier):
    """Names the action in a clip by words, with no training on them; satisfies `Recognizer`.

        classifier = ZeroShotClassifier.load("mini", labels=["drink", "read"])
        print(classifier.classify("video.mp4"))

    model    what `clipact.models.zoo.load_model` gives
    labels   phrases, a LabelSet, or the name of a shipped set ("kinetics400")
    prompts  a PromptSet, or the name or path of one: the sentences into which labels are put
    frames   frames a clip, instead of the number that the model was made for
    spec     how clips are prepared, instead of the model's own way; `frames` counts still
    clips    clips a video, spread over it; their embeddings are averaged
    decoder  a name in `clipact.video.ways.DECODERS`: pyav or torchcodec, which give the same frames
    cache    where text embeddings are kept between runs; the default folder when None
    progress is given the batches of sentences to encode, to show how far it is
    words    what clips are compared with, when it was computed before for these labels and prompts
    """

    def __init__(
        self,
        model: Engine,
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
        super().__init__((spec or model.spec).with_frames(frames), clips=clips, decoder=decoder)
        self.model = model
        self.label_set = labels if isinstance(labels, LabelSet) else LabelSet.of_any(labels)
        self.prompts = prompts if isinstance(prompts, PromptSet) else PromptSet.load(prompts)
        # Vectors to compare clips with, or the features of sentences, for each clip to change.
        self._text: TextClassifier | None = None
        self._sentences: dict[str, int] = {}
        if model.text_depends_on_video:
            said = dict.fromkeys(prompt.text for prompt in self.prompts.fill(self.label_set))
            self._sentences = {sentence: row for row, sentence in enumerate(said)}
            self._features = model.text_features(list(said), progress=progress)
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
        """A classifier from a model's name (see `clipact.models.zoo.load_model`); `options` as for the constructor."""
        from clipact.models import zoo

        return cls(zoo.load_model(model, device=device, precision=precision, defer_text=True), labels, **options)

    @property
    def engine(self) -> Engine:
        """The model."""
        return self.model

    @property
    def labels(self) -> tuple[str, ...]:
        """What it chooses from, as they were given."""
        return self.label_set.labels

    @property
    def text_embeddings(self) -> Float32[np.ndarray, "n d"]:
        """One unit vector a label: the mean over its sentences, normalised again. UsageError when it has several."""
        if not self.words.one_each or self.words.needs_template_weights:
            raise UsageError(f"with the prompts {self.prompts.name!r} a label has several vectors: ask `logits`")
        return self.words.rows[0]

    @property
    def words(self) -> TextClassifier:
        """What clips are compared with; ModelError where that depends on the clip."""
        if self._text is None:
            raise self.model.text_needs_video()
        return self._text

    def logits(self, clips: Float32[np.ndarray, "b d"]) -> Float32[np.ndarray, "b n"]:
        """The logits of each label for embeddings of clips."""
        return self.words.logits(self.model, clips)

    def with_weights(self, weights: Float[np.ndarray, " p"]) -> "ZeroShotClassifier":
        """The same with its templates weighted; see `clipact.classify.template_weights`."""
        return ZeroShotClassifier(
            self.model,
            self.label_set,
            prompts=replace(self.prompts, weights=tuple(weights.tolist())),
            clips=self.clips,
            spec=self.spec,
            decoder=self.decoder,
            words=self.words.weighted(weights),
        )

    averagings: tuple[Averaging, ...] = ("embeddings", "logits", "probabilities")

    def adapt(self, embeddings: Float32[np.ndarray, "n k d"]) -> "ZeroShotClassifier":
        """Return the classifier with weights for templates that await them, estimated from unlabelled clips."""
        if not self.words.needs_template_weights:
            return self
        return self.with_weights(template_weights(self.model, self.words, unit(embeddings.mean(1))))

    def score(self, embeddings: Float32[np.ndarray, "n k d"], *, averaging: Averaging) -> Float32[np.ndarray, "n l"]:
        """Return the logits of n videos for each label, averaged over their k views.

        Args:
            embeddings: Unit vectors of the views; of their mean, k = 1, where embeddings were averaged before.
            averaging: "logits": the mean of the views' logits. "probabilities": the logarithm of the mean of the
                views' softmax.
        """
        views, found = embeddings.shape[1], []
        for start in range(0, len(embeddings), _CLIPS_AT_ONCE):
            batch = rearrange(embeddings[start : start + _CLIPS_AT_ONCE], "b k d -> (b k) d")
            logits = rearrange(self.logits(batch), "(b k) l -> b k l", k=views)
            found.append(log_mean_softmax(logits) if averaging == "probabilities" else logits.mean(1))
        return np.concatenate(found)

    def facts(self) -> RecognizerFacts:
        """Return what an evaluation's record says of the model and the words."""
        prompts, labels = self.prompts, self.label_set
        about = [labels.about.get(label, LabelDetails()) for label in labels.labels]
        described = {
            "name": prompts.name,
            "templates": [template.text for template in prompts.templates],
            "wording": asdict(prompts.wording) | {"words": list(prompts.wording.words)},
            "weights": list(prompts.weights),
            "phrases": list(labels.written(prompts.wording.names)),
            "synonyms": [list(one.synonyms) for one in about] if "synonyms" in prompts.wording.words else [],
            "descriptions": [list(one.descriptions) for one in about]
            if "descriptions" in prompts.wording.words
            else [],
            "sha256": wording_key(labels, prompts),
        }
        return RecognizerFacts(model=self.model, prompts=described)

    def answer(self, embeddings: Float32[np.ndarray, "k d"]) -> Prediction:
        """Return the prediction for one video: a softmax over all labels, and how far its clips agree.

        Args:
            embeddings: Unit vectors of its clips; their contexts, where text depends on the video.
        """
        logits, each = self.compare(embeddings)
        scores = softmax(logits)
        return Prediction(
            labels=self.labels,
            scores=scores,
            model=self.model.name,
            prompts=self.prompts.name,
            agreement=agreement_of(each, self.labels, answer=self.labels[int(scores.argmax())]),
        )

    def compare(
        self, embeddings: Float32[np.ndarray, "k d"]
    ) -> tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, "k n"]]:
        """Return the logits of a video from what is known of its clips (see `answer`), and those of each clip alone.

        The video's are of the mean of its clips' embeddings; where text depends on the video, the mean of the clips'.
        """
        if self._text is None:
            each = self._compare_prompted(embeddings)
            return each.mean(0), each
        each = self.logits(embeddings)
        return each[0] if len(each) == 1 else self.logits(mean_clip(embeddings)[None])[0], each

    def _compare_prompted(self, contexts: Float32[np.ndarray, "k m"]) -> Float32[np.ndarray, "k n"]:
        each = (self.model.prompt(context[None], self._features) for context in contexts)  # n x d a clip
        return np.stack([self._compare_beside(clip[0], beside[0]) for clip, beside in each])

    def _compare_beside(
        self, clip: Float32[np.ndarray, " d"], text: Float32[np.ndarray, "n d"]
    ) -> Float32[np.ndarray, " l"]:
        def encode(sentences: Sequence[str]) -> Float32[np.ndarray, "n d"]:
            return text[[self._sentences[sentence] for sentence in sentences]]

        return make_text_classifier(encode, self.label_set, self.prompts).logits(self.model, clip[None])[0]
