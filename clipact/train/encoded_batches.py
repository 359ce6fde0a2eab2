"""Where a step's rows come from, and how each side becomes embeddings, as long as the same things learn.

A body that learns is fed frames and sentences. One that stays as it is may be fed once: its features are kept, and each
step runs the head alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from clipact.cache import Cache
from clipact.data.dataset import ClipTextDataset
from clipact.data.loader import Batch, Loader, ReadConfig
from clipact.data.sources import SourceConfig, TrainingExample
from clipact.errors import ConfigError, DataError
from clipact.models.dual_encoder import DualEncoder, unit
from clipact.models.towers.backbone_head import split_backbone_head
from clipact.train.chunks import Encoder
from clipact.train.feature_cache import (
    FeatureLoader,
    SentenceFeatures,
    VisualFeatures,
    Watch,
    encode_sentences,
    encode_visuals,
    prepare_frames,
)
from clipact.video.augment import Augment

_ENTRIES_AT_ONCE = 256  # read as one batch where no gradient is asked for
_FRAMES_AT_ONCE = 16  # encoded as one piece there: more is no faster on a CPU, and slower from 64 on


@dataclass(frozen=True, kw_only=True)
class DataConfig(ReadConfig):
    """What is learnt from, and how it is read.

    sources  manifests and protocols, mixed in one stream
    cache    encode what a frozen tower sees once, and keep it
    cached_augmentations  with a frozen visual tower: in how many ways each clip is kept, as it is and then augmented
    """

    sources: tuple[SourceConfig, ...]
    cache: bool = True
    cached_augmentations: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sources:
            raise ConfigError("data.sources is empty; name one manifest or protocol at least, under [[data.sources]]")
        if self.cached_augmentations < 1:
            raise ConfigError(f"data.cached_augmentations is {self.cached_augmentations}; it is at least 1")
        if (self.cached_augmentations > 1) and (self.augment is None or not self.cache):
            raise ConfigError(f"data.cached_augmentations is {self.cached_augmentations}, but without data.augment and data.cache there is one only")


class EncodedBatches:
    """Entries, and both sides' encoders, for the steps in which the same things learn.

    keeps    which sides' features are kept: "visual", "text"
    broken   files that could not be read so far; it grows as they are met
    judging  whether the entries are looked at as they are, rather than augmented and in several views
    precision  what bodies that stay as they are compute in, of PRECISIONS
    """

    def __init__(
        self,
        encoder: DualEncoder,
        entries: Sequence[TrainingExample],
        data: DataConfig,
        *,
        chunk: int,
        seed: int,
        keeps: Sequence[str],
        unreadable_files: dict[str, str],
        cache: Cache,
        watch: Watch,
        judging: bool = False,
        precision: str = "fp32",
    ) -> None:
        self.encoder, self.entries, self.data, self.keeps = encoder, entries, data, keeps
        self.chunk, self.seed = chunk, seed
        self.unreadable_files, self.cache, self.watch, self.judging = unreadable_files, cache, watch, judging
        self.precision = precision
        self.device = encoder.log_scale.device

    @property
    def encoders(self) -> tuple[Encoder, Encoder]:
        """The two sides, as gradient caching takes them."""
        visual, text = self.encoder.visual, self.encoder.text
        return Encoder("visual", visual, self.embed_visual), Encoder("text", text, self.embed_sentences)

    def batches(self, first: int, last: int, *, batch: int) -> Iterator[Batch]:
        """The batches from number `first` up to and without `last`, of `batch` entries each."""
        if "text" in self.keeps:
            _ = self.sentence_features  # now, not in the first step: there, precision may be halved
        if "visual" in self.keeps:
            return FeatureLoader(self.entries, self.clip_features, seed=self.seed, batch=batch).batches(first, last)
        samples = ClipTextDataset(self.entries, self.encoder.spec, seed=self.seed, augment=self.data.augment)
        return self._loader(samples, batch=batch, chunk=self.chunk, shuffled=True).batches(first, last)

    def embed_visual(self, rows: Tensor) -> Float[Tensor, "b d"]:
        """Unit vectors of clips, or of the features that were kept of them."""
        if "visual" in self.keeps:
            return unit(split_backbone_head(self.encoder.visual).head(rows.to(self.device)))
        return self.encoder.encode_video(prepare_frames(rows, self.encoder.spec, device=self.device))

    def embed_sentences(self, sentences: Sequence[str]) -> Float[Tensor, "b d"]:
        """Unit vectors of sentences, by way of the features that were kept of them, if any."""
        if "text" in self.keeps:
            return unit(
                split_backbone_head(self.encoder.text).head(self.sentence_features.of(sentences).to(self.device))
            )
        return self.encoder.encode_text(sentences, batch_size=len(sentences))

    def embed_all(self, sentences: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit vectors of any number of sentences, on the CPU, a chunk at a time."""
        parts = [sentences[i : i + self.chunk] for i in range(0, len(sentences), self.chunk)]
        return torch.cat([self.embed_sentences(part).cpu() for part in parts])

    def embed_clips(self) -> tuple[list[int], Float[Tensor, "n d"]]:
        """Visual ids, and one unit vector each, the mean over its clips; a file that cannot be read has none."""
        sums: dict[int, Tensor] = {}
        for rows, visual_ids in self._clips():
            for visual_id, embedding in zip(visual_ids, self.embed_visual(rows).cpu(), strict=True):
                sums[visual_id] = sums.get(visual_id, 0) + embedding
        if not sums:
            raise DataError("not one of the files to judge by could be read; `clipact data check` says why")
        return list(sums), unit(torch.stack(list(sums.values())))

    def _clips(self) -> Iterator[tuple[Tensor, list[int]]]:
        """Rows to embed at once, and their visual ids."""
        if "visual" in self.keeps:
            for visual_ids, features in self.clip_features.plain():
                for i in range(0, len(features), self.chunk):
                    yield features[i : i + self.chunk], visual_ids[i : i + self.chunk]
            return
        for batch in self._in_order([replace(entry, drawn=1) for entry in self.entries]).once():
            start = 0
            for piece in batch.visual:
                yield piece, batch.visual_ids[start : start + len(piece)].tolist()
                start += len(piece)

    @cached_property
    def clip_features(self) -> VisualFeatures:
        """What the frozen visual body makes of the entries' clips."""

        def loader(entries: Sequence[TrainingExample], augmented: bool) -> Loader:
            return self._in_order(entries, augment=self.data.augment if augmented else None)

        views = 1 if self.judging else self.data.cached_augmentations
        return encode_visuals(
            self.encoder.visual,
            self.entries,
            views=views,
            loader=loader,
            precision=self.precision,
            cache=self.cache,
            watch=self.watch,
        )

    @cached_property
    def sentence_features(self) -> SentenceFeatures:
        """What the frozen text body makes of every sentence that the entries may say."""
        sentences = (sentence for entry in self.entries for sentence in entry.sayings)
        return encode_sentences(
            self.encoder.text, sentences, precision=self.precision, cache=self.cache, watch=self.watch
        )

    def _in_order(self, entries: Sequence[TrainingExample], *, augment: Augment | None = None) -> Loader:
        samples = ClipTextDataset(entries, self.encoder.spec, seed=0, augment=augment)
        return self._loader(samples, batch=_ENTRIES_AT_ONCE, chunk=_FRAMES_AT_ONCE, shuffled=False)

    def _loader(self, samples: ClipTextDataset, *, batch: int, chunk: int, shuffled: bool) -> Loader:
        return Loader(
            samples,
            batch=batch,
            chunk=chunk,
            workers=self.data.workers,
            shuffled=shuffled,
            unreadable_files=self.unreadable_files,
            max_unreadable=self.data.max_unreadable,
        )
