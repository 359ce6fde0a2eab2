"""The command line: one file a command. The only floor that prints; nothing here imports torch at its top."""
