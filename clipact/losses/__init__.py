"""Losses as functions of tensors: no towers, no ranks, no files.

Of the contrastive ones, rows i of both sides belong together. Two different rows may do so too: they are positives of
each other when any of their ids agrees (the same clip, the same sentence, the same label). A diagonal target would call
right matches wrong.

`contrastive` defines the losses, dense; `tiled` computes the same without the b x b logits; `positives` says who
belongs together. `reconstruction` is for masked autoencoders, which have patches on both sides, and
`answers` for a fixed list of them. `distillation` follows teachers in place of ids.
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
