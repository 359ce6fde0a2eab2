"""How a label is put into words, and how its sentences are taken together: plain facts beside the templates."""

from dataclasses import dataclass
from typing import Literal, get_args

from clipact.errors import ConfigError, choices

Names = Literal["phrases", "split", "verbatim"]
Words = Literal["phrase", "synonyms", "descriptions"]
OverTemplates = Literal["embeddings", "probabilities", "weighted"]
OverWords = Literal["mean", "max"]


@dataclass(frozen=True, kw_only=True)
class Wording:
    """What is said of a label, and what becomes of it.

    names           how the label is written: a phrase ("using a laptop"), its words split ("use laptop"), or verbatim
    words           what is said: the phrase, synonyms (both in each template), descriptions (sentences already)
    over_templates  embeddings: the mean of the unit vectors, made unit (CLIP, arXiv 2103.00020, section 3.1.4)
                    probabilities: each template is a classifier of its own, and their probabilities are averaged
                    weighted: the mean of the logits by the templates' weights (ZPE, clipact.template_weights)
    over_words      a label is as likely as its words on average (mean) or as the likeliest of them (max)
    """

    names: Names = "phrases"
    words: tuple[Words, ...] = ("phrase",)
    over_templates: OverTemplates = "embeddings"
    over_words: OverWords = "mean"

    def __post_init__(self) -> None:
        for name, kind in (("names", Names), ("over_templates", OverTemplates), ("over_words", OverWords)):
            value, allowed = getattr(self, name), get_args(kind)
            if value not in allowed:
                raise ConfigError(f"wording.{name} is {value!r}; {choices(str(value), allowed)}")
        if not self.words or len(set(self.words)) < len(self.words) or set(self.words) - set(get_args(Words)):
            raise ConfigError(f"wording.words is {list(self.words)}; one or more of {', '.join(get_args(Words))}")
