"""From words to sentences: labels, templates, and the prompts that the two make together.

Sets that come with clipact lie under prompts/ in the checkout and go by their names; a user's own go by their paths.
This room yields sentences and the label of each, never vectors, and every text that enters passes `clean`.
"""

from clipact.prompts.english import phrase
from clipact.prompts.label_set import LabelDetails, LabelSet, Wording, parse_labels
from clipact.prompts.prompt_set import Prompt, PromptSet, Template
from clipact.prompts.text_input import clean, holds_templates, set_names

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
