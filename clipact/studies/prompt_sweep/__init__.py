"""Prompt sweeps: what other label wordings and templates would have scored on one encoding of the video."""
