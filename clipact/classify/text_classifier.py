"""How much each template should count, found from clips without their labels (ZPE, arXiv 2302.06235, section 3).

A template is good when its largest logit is large. But a template or a label whose words are frequent has large logits
for every clip: so what is expected of each template and label is taken away before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from clipact.cache import content_key
from clipact.errors import UsageError
from clipact.models.dual_encoder import DualEncoder, unit
from clipact.prompts import LabelSet, PromptSet

Encode = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class TextClassifier:
    """Vectors, and whose they are.

    rows     p planes of w vectors each; the probabilities that several planes give are averaged
    owner    the label_id of each of the w; a label is as likely as the likeliest of its vectors
    labels   how many labels there are
    weigh    whether the planes are templates that still await their weights: there are no logits before
    """

    rows: Float[Tensor, "p w d"]
    owner: Int[Tensor, " w"]
    labels: int
    weigh: bool = False

    @property
    def one_each(self) -> bool:
        """Whether each label has one vector."""
        return len(self.rows) == 1 and len(self.owner) == self.labels

    def plane_logits(self, encoder: DualEncoder, clips: Float[Tensor, "b d"]) -> Float[Tensor, "b p n"]:
        """What each plane says by itself."""
        flat = encoder.logits(clips, rearrange(self.rows, "p w d -> (p w) d"))
        logits = rearrange(flat, "b (p w) -> b p w", p=len(self.rows))
        if len(self.owner) == self.labels:
            return logits
        best = logits.new_full((*logits.shape[:2], self.labels), -torch.inf)
        return best.scatter_reduce(2, self.owner.expand_as(logits), logits, "amax")

    def logits(self, encoder: DualEncoder, clips: Float[Tensor, "b d"]) -> Float[Tensor, "b n"]:
        """scale x cosine of each clip with each label, or the log of the mean probability over planes."""
        if self.weigh:
            raise UsageError(
                "these templates await their weights, which are found from unlabelled clips: `clipact eval` and "
                "`clipact prompts sweep` find them; or write weights = [...] into the prompt file"
            )
        logits = self.plane_logits(encoder, clips)
        if logits.shape[1] == 1:
            return logits[:, 0]
        return logits.log_softmax(2).logsumexp(1) - torch.tensor(logits.shape[1]).log().to(logits.device)

    def only(self, labels: Sequence[int]) -> "TextClassifier":
        """Those of some labels, whose numbers then are 0, 1, ... in the order given."""
        place = torch.full((self.labels,), -1, device=self.owner.device)
        place[torch.tensor(labels, device=place.device)] = torch.arange(len(labels), device=place.device)
        order = place[self.owner].argsort(stable=True)
        order = order[place[self.owner][order] >= 0]
        return replace(self, rows=self.rows[:, order], owner=place[self.owner][order], labels=len(labels))

    def beside(self, other: "TextClassifier") -> "TextClassifier":
        """These, and after them those of other labels that were worded alike."""
        return replace(
            self,
            rows=torch.cat([self.rows, other.rows], dim=1),
            owner=torch.cat([self.owner, self.labels + other.owner]),
            labels=self.labels + other.labels,
        )

    def weighted(self, weights: Float[Tensor, " p"]) -> "TextClassifier":
        """One plane whose logits are the weighted mean of the planes' (so its vectors are shorter than 1)."""
        share = weights / weights.sum()
        return replace(self, rows=torch.einsum("p, p w d -> w d", share, self.rows)[None], weigh=False)


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
    owner = torch.tensor([label for label, _ in column], device=embeddings.device)
    shorter = wording.over_templates == "weighted"  # logits are averaged: vectors stay as long as their mean is
    if wording.over_templates == "embeddings":
        table = _unit_rows(table.mean(0, keepdim=True))
    if wording.over_words == "mean" and len(owner) > len(labels):
        sums = table.new_zeros((len(table), len(labels), table.shape[2])).index_add_(1, owner, table)
        means = sums / owner.bincount(minlength=len(labels))[None, :, None]
        table, owner = means if shorter else _unit_rows(means), torch.arange(len(labels), device=owner.device)
    vectors = TextClassifier(rows=table, owner=owner, labels=len(labels), weigh=shorter)
    return vectors.weighted(table.new_tensor(prompts.weights)) if prompts.weights else vectors


def _unit_rows(table: Float[Tensor, "p w d"]) -> Float[Tensor, "p w d"]:
    return rearrange(unit(rearrange(table, "p w d -> (p w) d")), "(p w) d -> p w d", p=len(table))


@torch.inference_mode()
def template_weights(
    encoder: DualEncoder,
    vectors: TextClassifier,
    clips: Float[Tensor, "b d"],
    *,
    reference: Float[Tensor, "r d"] | None = None,
    batch_size: int = 256,
) -> Float[Tensor, " p"]:
    """The weight of each plane of `vectors`, together 1 (the paper's algorithm 2, as its authors' code has it).

    With logits L[i, p, n] of clip i, template p and label n, scaled by the model's own scale:

        expected[p, n] = (mean over the reference of L + mean over the clips of L) / 2
        score[p]       = mean over the clips i of max over n of (L[i, p, n] - expected[p, n])
        weight         = softmax(score)

    `reference` stands for what the model learnt from: the authors take 20,000 pictures of LAION-400M. Without one,
    only the mean over the clips is taken away, which is their ablation "test".
    """
    if len(clips) == 0:
        raise UsageError("template weights need clips, with or without labels; there are none")

    def mean(of: Float[Tensor, "b d"]) -> Float[Tensor, "p n"]:
        sums = [vectors.plane_logits(encoder, batch).double().sum(0) for batch in torch.split(of, batch_size)]
        return torch.stack(sums).sum(0) / len(of)

    expected = mean(clips)
    if reference is not None:
        expected = (expected + mean(reference)) / 2
    best = [
        (vectors.plane_logits(encoder, batch).double() - expected).amax(2).sum(0)
        for batch in torch.split(clips, batch_size)
    ]
    return (torch.stack(best).sum(0) / len(clips)).softmax(0).float()
