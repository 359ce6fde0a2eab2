"""Training: contrastive steps at a batch size that the memory for graphs does not limit, and masked pretraining.

Needs torch; nothing that only classifies imports it.
"""
