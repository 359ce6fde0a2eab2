"""Decode, sample and transform videos: a source becomes Clips, sampled frames with a ledger of where they came from.

`load` is the entry point. `open_source` opens a source, `decode_*` decode frames, `sampling` chooses frame numbers,
`transforms` resizes. Nothing here imports torch, so that decoding can run while torch is imported.
"""
