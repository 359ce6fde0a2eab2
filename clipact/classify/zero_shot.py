"""Zero-shot classification: a clip is named by the label whose sentences' embeddings are nearest to its own.

`make_text_classifier` averages the embeddings of a label's sentences (templates, synonyms, descriptions) into the
vectors of a `TextClassifier`; `ZeroShotClassifier` joins it with a model, a video and the cache of text embeddings.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor

from clipact.cache import Cache, content_key
from clipact.classify.base import Prediction, Scored, VideoClassifier, agreement_of
from clipact.classify.embedding_recognizer import RecognizerFacts
from clipact.clip_spec import Averaging, ClipSpec
from clipact.errors import CacheError, UsageError
from clipact.models import zoo
from clipact.models.dual_encoder import DualEncoder, mean_view, prepare_views, unit
from clipact.progress import ProgressBar, no_progress
from clipact.prompts import LabelDetails, LabelSet, PromptSet

_CLIPS_AT_ONCE = 256  # x 48 templates x 700 labels: 34 MB of logits

Encode = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class TextClassifier:
    """The vectors that clips are compared with, and the label of each.

    rows                    p planes of w vectors each; the probabilities that several planes give are averaged
    label_ids               the label_id of each of the w; a label is as likely as the likeliest of its vectors
    labels                  how many labels there are
    needs_template_weights  whether the planes are templates without weights yet: there are no logits before
    """

    rows: Float[Tensor, "p w d"]
    label_ids: Int[Tensor, " w"]
    labels: int
    needs_template_weights: bool = False

    @property
    def one_each(self) -> bool:
        """Whether each label has one vector."""
        return len(self.rows) == 1 and len(self.label_ids) == self.labels

    def plane_logits(self, encoder: DualEncoder, clips: Float[Tensor, "b d"]) -> Float[Tensor, "b p n"]:
        """Return the logits of each plane."""
        flat = encoder.logits(clips, rearrange(self.rows, "p w d -> (p w) d"))
        logits = rearrange(flat, "b (p w) -> b p w", p=len(self.rows))
        if len(self.label_ids) == self.labels:
            return logits
        best = logits.new_full((*logits.shape[:2], self.labels), -torch.inf)
        return best.scatter_reduce(2, self.label_ids.expand_as(logits), logits, "amax")

    def logits(self, encoder: DualEncoder, clips: Float[Tensor, "b d"]) -> Float[Tensor, "b n"]:
        """scale x cosine of each clip with each label, or the log of the mean probability over planes."""
        if self.needs_template_weights:
            raise UsageError(
                "these templates await their weights, which are found from unlabelled clips: `clipact eval` and "
                "`clipact prompts sweep` find them; or write weights = [...] into the prompt file"
            )
        logits = self.plane_logits(encoder, clips)
        if logits.shape[1] == 1:
            return logits[:, 0]
        return logits.log_softmax(2).logsumexp(1) - torch.tensor(logits.shape[1]).log().to(logits.device)

    def only(self, labels: Sequence[int]) -> "TextClassifier":
        """Select some labels, whose numbers then are 0, 1, ... in the order given."""
        place = torch.full((self.labels,), -1, device=self.label_ids.device)
        place[torch.tensor(labels, device=place.device)] = torch.arange(len(labels), device=place.device)
        order = place[self.label_ids].argsort(stable=True)
        order = order[place[self.label_ids][order] >= 0]
        return replace(self, rows=self.rows[:, order], label_ids=place[self.label_ids][order], labels=len(labels))

    def append(self, other: "TextClassifier") -> "TextClassifier":
        """Append the vectors of other labels that were worded alike."""
        return replace(
            self,
            rows=torch.cat([self.rows, other.rows], dim=1),
            label_ids=torch.cat([self.label_ids, self.labels + other.label_ids]),
            labels=self.labels + other.labels,
        )

    def weighted(self, weights: Float[Tensor, " p"]) -> "TextClassifier":
        """Merge the planes into one whose logits are their weighted mean (so its vectors are shorter than 1)."""
        share = weights / weights.sum()
        return replace(self, rows=torch.einsum("p, p w d -> w d", share, self.rows)[None], needs_template_weights=False)


def wording_key(labels: LabelSet, prompts: PromptSet) -> str:
    """A sha256 of all that a label set is put into words with: another sentence, place or wording gives another."""
    filled = prompts.fill(labels)
    places = [f"{prompt.label} {prompt.word} {prompt.template}" for prompt in filled]
    return content_key("words 1", repr(prompts.wording), repr(prompts.weights), *places, *(p.text for p in filled))


def make_text_classifier(encode: Encode, labels: LabelSet, prompts: PromptSet) -> TextClassifier:
    """The vectors of a label set, worded as the prompt set says; `encode` gives unit vectors of sentences."""
    wording, prompt_list = prompts.wording, prompts.fill(labels)
    texts = list(dict.fromkeys(prompt.text for prompt in prompt_list))
    place = {text: i for i, text in enumerate(texts)}
    column: dict[tuple[int, int], int] = {}
    for prompt in prompt_list:
        column.setdefault((prompt.label, prompt.word), len(column))
    index = torch.empty((len(prompts.templates), len(column)), dtype=torch.long)
    for prompt in prompt_list:
        planes = slice(None) if prompt.template is None else prompt.template
        index[planes, column[prompt.label, prompt.word]] = place[prompt.text]
    embeddings = encode(texts)
    table = embeddings[index.to(embeddings.device)]
    label_ids = torch.tensor([label for label, _ in column], device=embeddings.device)
    shorter = wording.over_templates == "weighted"  # logits are averaged: vectors stay as long as their mean is
    if wording.over_templates == "embeddings":
        table = _unit_rows(table.mean(0, keepdim=True))
    if wording.over_words == "mean" and len(label_ids) > len(labels):
        sums = table.new_zeros((len(table), len(labels), table.shape[2])).index_add_(1, label_ids, table)
        means = sums / label_ids.bincount(minlength=len(labels))[None, :, None]
        table, label_ids = means if shorter else _unit_rows(means), torch.arange(len(labels), device=label_ids.device)
    vectors = TextClassifier(rows=table, label_ids=label_ids, labels=len(labels), needs_template_weights=shorter)
    return vectors.weighted(table.new_tensor(prompts.weights)) if prompts.weights else vectors


def _unit_rows(table: Float[Tensor, "p w d"]) -> Float[Tensor, "p w d"]:
    return rearrange(unit(rearrange(table, "p w d -> (p w) d")), "(p w) d -> p w d", p=len(table))


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
    decoder  a name in `clipact.video.collect.DECODERS`: pyav or torchcodec, which give the same frames
    cache    where text embeddings are kept between runs; the default folder when None
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
        """A classifier from a model's name (see `clipact.models.zoo.load_model`); `options` as for the constructor."""
        return cls(zoo.load_model(model, device=device, precision=precision, defer_text=True), labels, **options)

    @property
    def labels(self) -> tuple[str, ...]:
        """What it chooses from, as they were given."""
        return self.label_set.labels

    @property
    def text_embeddings(self) -> Float[Tensor, "n d"]:
        """One unit vector a label: the mean over its sentences, normalised again. UsageError when it has several."""
        if not self.words.one_each or self.words.needs_template_weights:
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
        """The same with its templates weighted; see `clipact.classify.template_weights`."""
        return ZeroShotClassifier(
            self.model,
            self.label_set,
            prompts=replace(self.prompts, weights=tuple(weights.tolist())),
            clips=self.clips,
            spec=self.spec,
            decoder=self.decoder,
            words=self.words.weighted(weights.to(self.words.rows.device)),
        )

    averagings: tuple[Averaging, ...] = ("embeddings", "logits", "probabilities")

    @torch.inference_mode()
    def adapt(self, embeddings: Float32[np.ndarray, "n k d"]) -> "ZeroShotClassifier":
        """Return the classifier with weights for templates that await them, estimated from unlabelled clips."""
        if not self.words.needs_template_weights:
            return self
        from clipact.classify.template_weights import template_weights

        means = unit(torch.from_numpy(embeddings).to(self.model.encoder.log_scale.device).mean(1))
        return self.with_weights(template_weights(self.model.encoder, self.words, means))

    @torch.inference_mode()
    def score(self, embeddings: Float32[np.ndarray, "n k d"], *, averaging: Averaging) -> Float32[np.ndarray, "n l"]:
        """Return the logits of n videos for each label, averaged over their k views.

        Args:
            embeddings: Unit vectors of the views; of their mean, k = 1, where embeddings were averaged before.
            averaging: "logits": the mean of the views' logits. "probabilities": the logarithm of the mean of the
                views' softmax.
        """
        views = embeddings.shape[1]
        clips = torch.from_numpy(embeddings.reshape(-1, embeddings.shape[2])).to(self.model.encoder.log_scale.device)
        found = []
        for batch in torch.split(clips, _CLIPS_AT_ONCE * views):
            logits = rearrange(self.logits(batch).float(), "(b k) l -> b k l", k=views)
            if averaging == "probabilities":
                logits = logits.log_softmax(2).logsumexp(1, keepdim=True) - np.log(views)
            found.append(logits.mean(1))
        return torch.cat(found).cpu().numpy()

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
            embeddings = encoder.embed_views(views, self.spec)
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
    """What clips are compared with, on the model's device, from the cache when it was computed before.

    The key holds the weights' hash, the wording and every sentence with its place: anything that changes a vector
    changes it. `progress` is as for `DualEncoder.encode_text`.
    """
    key = content_key("label vectors 2", model.key, wording_key(labels, prompts))
    device = model.encoder.log_scale.device
    if (kept := cache.read("text", key)) is not None:
        return TextClassifier(
            rows=torch.from_numpy(kept["rows"]).to(device),
            label_ids=torch.from_numpy(kept["owner"]).to(device),
            labels=len(labels),
            needs_template_weights=prompts.awaits_weights,
        )
    vectors = make_text_classifier(partial(model.encoder.encode_text, progress=progress), labels, prompts)
    try:
        cache.write("text", key, {"rows": vectors.rows.float().cpu().numpy(), "owner": vectors.label_ids.cpu().numpy()})
    except CacheError as error:  # a cache that cannot be written costs time, not the answer
        warnings.warn(str(error), stacklevel=2)
    return vectors
