"""The one engine from videos and sentences to embeddings."""
