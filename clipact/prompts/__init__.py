"""From words to sentences: labels, templates, and the prompts that the two make together.

Sets that come with clipact lie under prompts/ in the checkout and go by their names; a user's own go by their paths.
This room yields sentences and the label of each, never vectors, and every text that enters passes `clean`.
"""

from clipact.prompts.clean import clean
from clipact.prompts.label_set import About, LabelSet, parse_labels
from clipact.prompts.phrases import phrase
from clipact.prompts.prompt_set import Prompt, PromptSet, Template
from clipact.prompts.set_files import holds_templates, set_names
from clipact.prompts.wording import Wording

__all__ = [
    "About",
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
