"""From sentences to what clips are compared with: the vectors of labels, pooled over templates and words.

`make_text_classifier` averages the embeddings of a label's sentences (templates, synonyms, descriptions) into the
vectors of a `TextClassifier`; `embed_labels` takes those embeddings from the cache, and encodes the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from einops import rearrange
from jaxtyping import Float, Float32, Int64

from clipact.cache import Cache, content_key
from clipact.embed.sentences import embed_sentences
from clipact.engines.engine import Engine
from clipact.engines.vectors import log_softmax, unit
from clipact.errors import UsageError
from clipact.progress import ProgressBar, no_progress
from clipact.prompts import LabelSet, PromptSet

Encode = Callable[[Sequence[str]], Float32[np.ndarray, "n d"]]


@dataclass(frozen=True, kw_only=True, eq=False)
class TextClassifier:
    """The vectors that clips are compared with, and the label of each.

    rows                    p planes of w vectors each; the probabilities that several planes give are averaged
    label_ids               the label_id of each of the w, in ascending order, none left out; a label is as likely as
                            the likeliest of its vectors
    labels                  how many labels there are
    needs_template_weights  whether the planes are templates without weights yet: there are no logits before
    """

    rows: Float32[np.ndarray, "p w d"]
    label_ids: Int64[np.ndarray, " w"]
    labels: int
    needs_template_weights: bool = False

    def __post_init__(self) -> None:
        assert (np.diff(self.label_ids) >= 0).all()

    @property
    def one_each(self) -> bool:
        """Whether each label has one vector."""
        return len(self.rows) == 1 and len(self.label_ids) == self.labels

    def plane_logits(self, engine: Engine, clips: Float32[np.ndarray, "b d"]) -> Float32[np.ndarray, "b p n"]:
        """Return the logits of each plane."""
        flat = engine.logits(clips, rearrange(self.rows, "p w d -> (p w) d"))
        logits = rearrange(flat, "b (p w) -> b p w", p=len(self.rows))
        if len(self.label_ids) == self.labels:
            return logits
        return np.maximum.reduceat(logits, _first_of_each(self.label_ids), axis=2)

    def logits(self, engine: Engine, clips: Float32[np.ndarray, "b d"]) -> Float32[np.ndarray, "b n"]:
        """Return scale x cosine of each clip with each label, or the log of the mean probability over planes."""
        if self.needs_template_weights:
            raise UsageError(
                "these templates await their weights, which are found from unlabelled clips: `clipact eval` and "
                "`clipact prompts sweep` find them; or write weights = [...] into the prompt file"
            )
        logits = self.plane_logits(engine, clips)
        return logits[:, 0] if logits.shape[1] == 1 else log_mean_softmax(logits)

    def only(self, labels: Sequence[int]) -> "TextClassifier":
        """Select some labels, whose numbers then are 0, 1, ... in the order given."""
        place = np.full(self.labels, -1, dtype=np.int64)
        place[list(labels)] = np.arange(len(labels))
        order = place[self.label_ids].argsort(kind="stable")
        order = order[place[self.label_ids][order] >= 0]
        return replace(self, rows=self.rows[:, order], label_ids=place[self.label_ids][order], labels=len(labels))

    def append(self, other: "TextClassifier") -> "TextClassifier":
        """Append the vectors of other labels that were worded alike."""
        return replace(
            self,
            rows=np.concatenate([self.rows, other.rows], axis=1),
            label_ids=np.concatenate([self.label_ids, self.labels + other.label_ids]),
            labels=self.labels + other.labels,
        )

    def weighted(self, weights: Float[np.ndarray, " p"]) -> "TextClassifier":
        """Merge the planes into one whose logits are their weighted mean (so its vectors are shorter than 1)."""
        share = (weights / weights.sum()).astype(np.float32)
        merged = np.tensordot(share, self.rows, axes=1)
        return replace(self, rows=merged[None], needs_template_weights=False)


def log_mean_softmax(logits: Float32[np.ndarray, "b p n"]) -> Float32[np.ndarray, "b n"]:
    """Return the logarithm of the mean over p of the softmax over n."""
    shares = log_softmax(logits)
    top = shares.max(1)
    return top + np.log(np.exp(shares - top[:, None]).mean(1))


def wording_key(labels: LabelSet, prompts: PromptSet) -> str:
    """A sha256 of all that a label set is put into words with: another sentence, place or wording gives another."""
    filled = prompts.fill(labels)
    places = [f"{prompt.label} {prompt.word} {prompt.template}" for prompt in filled]
    return content_key("words 1", repr(prompts.wording), repr(prompts.weights), *places, *(p.text for p in filled))


def make_text_classifier(encode: Encode, labels: LabelSet, prompts: PromptSet) -> TextClassifier:
    """The vectors of a label set, worded as the prompt set says; `encode` gives unit vectors of sentences."""
    wording, prompt_list = prompts.wording, prompts.fill(labels)
    place = {text: i for i, text in enumerate(dict.fromkeys(prompt.text for prompt in prompt_list))}
    column: dict[tuple[int, int], int] = {}
    for prompt in prompt_list:
        column.setdefault((prompt.label, prompt.word), len(column))
    index = np.empty((len(prompts.templates), len(column)), dtype=np.int64)
    for prompt in prompt_list:
        planes = slice(None) if prompt.template is None else prompt.template
        index[planes, column[prompt.label, prompt.word]] = place[prompt.text]
    embeddings = encode(list(place))
    label_ids = np.array([label for label, _ in column], dtype=np.int64)
    shorter = wording.over_templates == "weighted"  # logits are averaged: vectors stay as long as their mean is
    table = unit(_mean_plane(embeddings, index)) if wording.over_templates == "embeddings" else embeddings[index]
    if wording.over_words == "mean" and len(label_ids) > len(labels):
        sums = np.add.reduceat(table, _first_of_each(label_ids), axis=1)
        means = sums / np.bincount(label_ids, minlength=len(labels)).astype(np.float32)[None, :, None]
        table, label_ids = means if shorter else unit(means), np.arange(len(labels))
    vectors = TextClassifier(rows=table, label_ids=label_ids, labels=len(labels), needs_template_weights=shorter)
    return vectors.weighted(np.array(prompts.weights)) if prompts.weights else vectors


def embed_labels(
    model: Engine, labels: LabelSet, prompts: PromptSet, *, cache: Cache, progress: ProgressBar = no_progress
) -> TextClassifier:
    """Return what clips are compared with; sentences that the cache holds for this model are not encoded.

    `progress` shows the batches of sentences that are encoded.
    """
    return make_text_classifier(sentence_embedder(model, cache=cache, progress=progress), labels, prompts)


def sentence_embedder(model: Engine, *, cache: Cache, progress: ProgressBar = no_progress) -> Encode:
    """Return what gives sentences their unit vectors, from the cache where it holds them."""

    def encode(sentences: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        key = content_key("sentence embeddings 1", model.key)
        return embed_sentences(sentences, model.encode_text, key=key, cache=cache, progress=progress)

    return encode


def _first_of_each(label_ids: Int64[np.ndarray, " w"]) -> Int64[np.ndarray, " n"]:
    """Where the vectors of each label begin."""
    return np.flatnonzero(np.diff(label_ids, prepend=-1))


def _mean_plane(
    embeddings: Float32[np.ndarray, "n d"], index: Int64[np.ndarray, "p w"]
) -> Float32[np.ndarray, "1 w d"]:
    """The mean over templates, one after the other: all of them at once would be p times as large."""
    total = embeddings[index[0]]
    for plane in index[1:]:
        total += embeddings[plane]
    return (total / np.float32(len(index)))[None]
