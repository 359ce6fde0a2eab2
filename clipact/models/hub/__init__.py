"""Adapters of other libraries' models: open_clip, transformers and timm. Each library is imported in one file."""
