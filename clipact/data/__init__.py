"""The data room: tables of files become batches of clips and sentences, the same for any number of workers.

`manifest` reads the tables, `sources` says what is taken from them, `samples` decodes one, `loader` makes batches of
many. `check` reads everything and says what is wrong. A file that cannot be read is counted and named, never replaced.
"""
