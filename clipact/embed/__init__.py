"""From video files to embeddings: decode ahead in threads, encode, average over views."""
