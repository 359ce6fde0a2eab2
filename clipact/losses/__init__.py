"""Contrastive losses as functions of embeddings: no towers, no ranks, no files.

Rows i of both sides belong together. Two different rows may do so too: they are positives of each other when any of
their ids agrees (the same clip, the same sentence, the same label). A diagonal target would call right matches wrong.

`contrastive` defines the losses, dense; `tiled` computes the same without the b x b logits; `positives` says who
belongs together.
"""

from clipact.losses.contrastive import LOSSES, bound_log_scale, info_nce, sigmoid
from clipact.losses.positives import find_positives

__all__ = ["LOSSES", "bound_log_scale", "find_positives", "info_nce", "sigmoid"]
