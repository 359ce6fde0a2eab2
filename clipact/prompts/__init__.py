"""Make sentences of labels: label sets, templates, and the prompts that they make together.

Sets that come with clipact lie under prompts/ in the checkout and go by their names; a user's own go by their paths.
This package yields sentences and the label of each, never vectors, and every text that enters passes `clean`.
"""

from clipact.prompts.english import phrase
from clipact.prompts.label_set import LabelDetails, LabelSet, clean, holds_templates, parse_labels, set_names
from clipact.prompts.prompt_set import Prompt, PromptSet, Template, Wording

__all__ = [
    "LabelDetails",
    "LabelSet",
    "Prompt",
    "PromptSet",
    "Template",
    "Wording",
    "clean",
    "holds_templates",
    "parse_labels",
    "phrase",
    "set_names",
]
