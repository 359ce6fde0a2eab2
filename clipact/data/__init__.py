"""Training data: tables of files become batches of clips and sentences, the same for any number of workers.

`manifest` reads tables, `sources` makes training examples of them, `loader` decodes examples into batches. `check`
reads everything and lists what is wrong. A file that cannot be read is counted and named, never replaced.
"""
