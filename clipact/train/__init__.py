"""The training room: contrastive steps at a batch size that the memory for graphs does not limit.

Needs torch; nothing that only classifies imports it.
"""
