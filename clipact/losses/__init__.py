"""Losses as functions of tensors: no towers, no ranks, no files.

Of the contrastive ones, rows i of both sides belong together. Two different rows may do so too: they are positives of
each other when any of their ids agrees (the same clip, the same sentence, the same label). A diagonal target would call
right matches wrong.

`info_nce` defines the contrastive losses, dense; `tiled` computes the same without the b x b logits. `classification`
has the cross-entropy over a fixed list of labels, and distillation, which follows teachers in place of ids.
`reconstruction` is for masked autoencoders, which have patches on both sides.
"""

from clipact.losses.classification import Targets, cross_entropy, distillation_loss
from clipact.losses.info_nce import LOSSES, bound_log_scale, find_positives, info_nce, sigmoid
from clipact.losses.reconstruction import masked_mse, normalise_patches, patch_moments, pick_patches

__all__ = [
    "LOSSES",
    "Targets",
    "bound_log_scale",
    "cross_entropy",
    "distillation_loss",
    "find_positives",
    "info_nce",
    "masked_mse",
    "normalise_patches",
    "patch_moments",
    "pick_patches",
    "sigmoid",
]
