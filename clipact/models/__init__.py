"""Models: from a name to a dual encoder, with towers, network parts and adapters of other libraries.

`zoo` loads a model by name, `checkpoint` and `save_checkpoint` read and write folders, `dual_encoder` joins towers,
`local_models` lists what is on this machine. Import the modules themselves: nothing is re-exported, so that reading a
config needs no torch.
"""
