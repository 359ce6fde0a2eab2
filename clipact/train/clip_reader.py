"""Read training examples through the one engine: embeddings of a live tower, features of a frozen backbone.

Features have the cache keys that every command shares: a file that was evaluated is not encoded again for training, nor
the other way round. View 0 of a clip is the clip as it is, the others are augmented, each drawn once.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float32

from clipact.cache import Cache
from clipact.data.fingerprint import file_digest
from clipact.data.sources import TrainingExample
from clipact.embed.clip_source import ClipSource
from clipact.embed.embed_clips import EmbedRequest, embed_clips
from clipact.embed.feature_cache import FeatureCache
from clipact.embed.options import EmbedOptions
from clipact.embed.video_embedding import VideoEmbedding
from clipact.engines.clip_encoder import ClipEncoder
from clipact.engines.torch_clip_encoder import make_clip_encoder
from clipact.models.dual_encoder import DualEncoder
from clipact.progress import ProgressBar, no_progress
from clipact.train.drawn_inputs import ClipKey
from clipact.train.frozen_features import VisualFeatures
from clipact.train.loader import ReadConfig, draw_texts
from clipact.train.unreadable_files import count_unreadable

Clips = Mapping[ClipKey, TrainingExample]
"""Distinct clips, each with an example that they are of."""


class ClipReader:
    """Have the clips of training examples encoded.

    Args:
        encoder: The model; its visual tower is used alone.
        data: How files are read: workers, augmentation, how many may be unreadable.
        precision: A key of PRECISIONS.
        cache: Where features are looked for and kept; None: nowhere.
        unreadable_files: Grows by those that cannot be read, with their causes.
        progress: Shows how far it is.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        data: ReadConfig,
        *,
        precision: str,
        cache: Cache | None,
        unreadable_files: dict[str, str],
        progress: ProgressBar = no_progress,
    ) -> None:
        self.encoder, self.data, self.precision = encoder, data, precision
        self.cache, self.unreadable_files, self.progress = cache, unreadable_files, progress

    @cached_property
    def weights_key(self) -> str:
        """Hash of the backbone, its device and precision, taken once."""
        return make_clip_encoder(self.encoder, "", precision=self.precision).key()

    def embed(self, clips: Clips, *, features: bool = False) -> Iterator[tuple[ClipKey, VideoEmbedding]]:
        """Yield the embeddings, or the features, of each key's clips, shape by shape; unreadable files are left out.

        Raises:
            DataError: More files cannot be read than are allowed.
        """
        # Threads, where a recipe means processes: at least one.
        options = EmbedOptions(workers=max(1, self.data.workers), cache=self.cache, progress=self.progress)
        for request, keys in self._requests(clips, features=features):
            rows = [_clip_source(clips[key], key.view) for key in keys]
            for key, found in zip(keys, embed_clips(rows, request, options, description="encoding"), strict=True):
                if found.cause:
                    unreadable = [(clips[key].path, found.cause)]
                    count_unreadable(self.unreadable_files, unreadable, limit=self.data.max_unreadable)
                else:
                    yield key, found

    def read_into(self, features: VisualFeatures, clips: Clips) -> None:
        """Add the features of the clips that can be read."""
        for shape, group in groupby(self.embed(clips, features=True), key=lambda pair: pair[0].shape):
            keys: list[ClipKey] = []
            rows: Float32[np.ndarray, "n k ..."] | None = None
            for key, found in group:
                assert found.features is not None
                if rows is None:  # at its full size: a list of them and a copy in one piece would take twice as much
                    rows = np.empty((sum(one.shape == shape for one in clips), *found.features.shape), np.float32)
                rows[len(keys)] = found.features
                keys.append(key)
            assert rows is not None
            features.add(keys, torch.from_numpy(rows[: len(keys)]))

    def count_cached(self, clips: Clips) -> int:
        """Return how many keys the cache has the features of; nothing is decoded, each file is read for its hash."""
        found = 0
        for request, keys in self._requests(clips, features=True):
            store = FeatureCache(self.cache, request.encoder, augment=request.augment)
            for key in keys:
                row = _clip_source(clips[key], key.view)
                found += store.read(store.key(row, file_digest(clips[key].path)), name=row.name) is not None
        return found

    def warm_up(self, clips: Iterable[ClipKey]) -> None:
        """Encode a black clip of each shape: the first one of a process takes longer than any other."""
        for shape in sorted({key.shape for key in clips}):
            encoder = self._clip_encoder(*shape)
            frames = 1 if encoder.by_frame else encoder.spec.frames
            encoder.encode(np.zeros((1, frames, *encoder.spec.size, 3), np.uint8))

    def _requests(self, clips: Clips, *, features: bool) -> Iterator[tuple[EmbedRequest, list[ClipKey]]]:
        """What is asked of the engine for the keys of each shape: those of view 0, then those that are augmented."""
        for shape in sorted({key.shape for key in clips}):
            encoder = self._clip_encoder(*shape)
            for augmented in (False, True):
                keys = [key for key in clips if key.shape == shape and (key.view > 0) == augmented]
                if keys:
                    augment = self.data.augment if augmented else None
                    yield EmbedRequest(encoder=encoder, features=features, augment=augment), keys

    def _clip_encoder(self, frames: int, clips: int) -> ClipEncoder:
        spec = self.encoder.spec.with_frames(frames)
        # What stands as "" is for journals, of which there is none here.
        made = make_clip_encoder(self.encoder, "", spec=spec, clips=clips, precision=self.precision)
        return replace(made, key=lambda: self.weights_key)


def _clip_source(example: TrainingExample, view: int) -> ClipSource:
    # What is augmented is drawn as if there were one sentence, so that another wording leaves the clips as they are.
    plain = replace(example, sentences=("",), sentences_drawn=1, caption_augmentation=None)
    draw = draw_texts(plain, seed=0, epoch=view)[1] if view else 0
    return ClipSource(
        source=example.path,
        name=example.file,
        start_seconds=example.start_seconds,
        end_seconds=example.end_seconds,
        draw=draw,
    )
