import numpy as np

from clipact.label_index import IndexEntry, IndexMetadata

DIM = 32
METADATA = IndexMetadata(model="drawn", model_key="k" * 64, wording="none", dim=DIM)


def clusters(count, *, seed=0, dim=DIM):
    """Unit vectors about 50 centres: they have neighbours to find."""
    centres = np.random.default_rng(99).standard_normal((50, dim))
    generator = np.random.default_rng(seed)
    drawn = centres[generator.integers(0, 50, count)] + 0.7 * generator.standard_normal((count, dim))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def entries(count, *, start=0):
    return [IndexEntry(id=f"id {i}", text=f"text {i}", metadata={"row": i}) for i in range(start, start + count)]


def encoder(vectors, *, calls=None):
    def encode(batch):
        if calls is not None:
            calls.append(len(batch))
        return vectors[[entry.metadata["row"] for entry in batch]]

    return encode
