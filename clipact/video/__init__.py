"""The video room: a file becomes a Clip, which is sampled frames with a ledger of where they came from.

`load` is the door. `decode` opens files, `sampling` chooses frame numbers, `transforms` resizes, `normalise`
makes tensors. Nothing here but `normalise` imports torch, so that decoding can run while torch is imported.
"""
