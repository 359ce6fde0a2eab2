"""Training data: tables of files, protocols and their lists, and what they give to training; nothing here needs torch.

`manifest` reads tables, `sources` makes training examples of them (`clipact.train.loader` decodes them into batches),
`check` reads everything and lists what is wrong. A file that cannot be read is counted and named, never replaced.
"""
