"""Batches of a step and the encoders of both sides, for the steps in which the same parameters are trained.

A trainable backbone is given frames and sentences. A frozen one runs once, over what the steps draw: its features are
kept in memory and in the cache, and each step runs the head alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from clipact.cache import Cache
from clipact.clip_spec import ClipSpec
from clipact.data.sources import TrainingExample
from clipact.models.dual_encoder import DualEncoder, normalise_frames, unit
from clipact.models.towers.backbone_head import split_backbone_head
from clipact.progress import ProgressBar, no_progress
from clipact.train.chunks import Encoder
from clipact.train.clip_reader import ClipReader
from clipact.train.drawn_inputs import ClipKey, DrawnInputs, draw_inputs
from clipact.train.feature_loader import FeatureLoader
from clipact.train.frozen_features import SentenceFeatures, VisualFeatures
from clipact.train.loader import Batch, ClipTextDataset, Loader
from clipact.train.recipe import DataConfig
from clipact.train.sentence_reader import SentenceReader


def prepare_frames(
    frames: UInt8[Tensor, "b t h w c"], spec: ClipSpec, *, device: torch.device
) -> Float[Tensor, "b t c h w"]:
    """Return the frames as a visual tower takes them, on its device."""
    pictures = rearrange(frames, "b t h w c -> (b t) h w c").numpy()
    return rearrange(normalise_frames(pictures, spec, device=device), "(b t) c h w -> b t c h w", b=len(frames))


class EncodedBatches:
    """Batches of training examples, and both sides' encoders, for one phase of training.

    Args:
        encoder: The model.
        examples: What batches are drawn from.
        data: How files are read.
        chunk: Frames, or features, that are encoded at once.
        seed: Of the order, and of everything that is drawn for an example.
        cached_sides: The sides whose backbone is frozen and whose features are cached: "visual", "text".
        unreadable_files: Files that could not be read so far, with their causes; it grows as they are met.
        cache: Where features are kept.
        progress: Shows how far they are encoded.
        unaugmented: Whether clips are taken as they are, once, rather than augmented and in several versions.
        precision: Of all that is encoded without a gradient, a key of PRECISIONS.
        step_sentences: Those that are encoded in every step, whatever it draws.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        examples: Sequence[TrainingExample],
        data: DataConfig,
        *,
        chunk: int,
        seed: int,
        cached_sides: Sequence[str],
        unreadable_files: dict[str, str],
        cache: Cache,
        progress: ProgressBar = no_progress,
        unaugmented: bool = False,
        precision: str = "fp32",
        step_sentences: Sequence[str] = (),
    ) -> None:
        self.encoder, self.examples, self.data, self.cached_sides = encoder, examples, data, tuple(cached_sides)
        self.chunk, self.seed, self.unreadable_files, self.cache = chunk, seed, unreadable_files, cache
        self.progress, self.unaugmented, self.precision = progress, unaugmented, precision
        self.step_sentences = tuple(step_sentences)
        self.device = encoder.log_scale.device
        self.views = 1 if unaugmented else data.cached_augmentations
        self.visual_features, self.sentence_features = VisualFeatures(), SentenceFeatures()
        kept = "visual" in self.cached_sides
        self.clip_reader = ClipReader(
            encoder,
            data,
            precision=precision,
            cache=cache if kept else None,
            unreadable_files=unreadable_files,
            progress=progress if kept else no_progress,
        )
        self.sentence_reader = SentenceReader(encoder, precision=precision, cache=cache, progress=progress)
        self._encoded: list[range] = []  # places in the order of the examples

    def in_cache(self, cache: Cache) -> "EncodedBatches":
        """Return the same with nothing encoded yet, and with features in another cache."""
        return EncodedBatches(
            self.encoder,
            self.examples,
            self.data,
            chunk=self.chunk,
            seed=self.seed,
            cached_sides=self.cached_sides,
            unreadable_files=self.unreadable_files,
            cache=cache,
            progress=self.progress,
            unaugmented=self.unaugmented,
            precision=self.precision,
            step_sentences=self.step_sentences,
        )

    @property
    def encoders(self) -> tuple[Encoder, Encoder]:
        """The two sides, as gradient caching takes them."""
        visual, text = self.encoder.visual, self.encoder.text
        return Encoder("visual", visual, self.embed_visual), Encoder("text", text, self.embed_sentences)

    def draw(self, first: int, last: int, *, batch: int) -> DrawnInputs:
        """Return what the batches from number `first` up to and without `last`, of `batch` examples each, draw."""
        places = range(first * batch, last * batch)
        return draw_inputs(self.examples, places, seed=self.seed, views=self.views, sentences=self.step_sentences)

    def encode(self, first: int, last: int, *, batch: int) -> None:
        """Encode, by frozen backbones, what these batches draw, where that is not done: before precision is halved."""
        places = range(first * batch, last * batch)
        if self.cached_sides and not any(
            places.start >= one.start and places.stop <= one.stop for one in self._encoded
        ):
            drawn = self.draw(first, last, batch=batch)
            self.encode_sentences(drawn.sentences)
            self.encode_clips(drawn.clips)
            self._encoded.append(places)

    def encode_clips(self, clips: Mapping[ClipKey, TrainingExample]) -> None:
        """Give features to the clips that have none; nothing is done where the visual backbone is trained."""
        if "visual" in self.cached_sides:
            absent = {key: example for key, example in clips.items() if key not in self.visual_features}
            self.clip_reader.read_into(self.visual_features, absent)

    def encode_sentences(self, sentences: Iterable[str]) -> None:
        """Give features to the sentences that have none; nothing is done where the text backbone is trained."""
        if "text" in self.cached_sides:
            absent = [one for one in dict.fromkeys(sentences) if one not in self.sentence_features]
            self.sentence_reader.read_into(self.sentence_features, absent)

    def batches(self, first: int, last: int, *, batch: int) -> Iterator[Batch]:
        """The batches from number `first` up to and without `last`, of `batch` examples each."""
        self.encode(first, last, batch=batch)
        if "visual" in self.cached_sides:
            loader = FeatureLoader(
                self.examples, self.visual_features, seed=self.seed, batch=batch, views=self.views
            )  # fmt: skip
            return loader.batches(first, last)
        return Loader(
            ClipTextDataset(self.examples, self.encoder.spec, seed=self.seed, augment=self.data.augment),
            batch=batch,
            chunk=self.chunk,
            workers=self.data.workers,
            unreadable_files=self.unreadable_files,
            max_unreadable=self.data.max_unreadable,
        ).batches(first, last)

    def embed_visual(self, rows: Tensor) -> Float[Tensor, "b d"]:
        """Return unit embeddings of clips, or of their cached features."""
        if "visual" in self.cached_sides:
            return unit(split_backbone_head(self.encoder.visual).head(rows.to(self.device)))
        return self.encoder.encode_video(prepare_frames(rows, self.encoder.spec, device=self.device))

    def embed_sentences(self, sentences: Sequence[str]) -> Float[Tensor, "b d"]:
        """Return unit embeddings of sentences; where the text backbone is frozen, of those that have features."""
        if "text" in self.cached_sides:
            features = self.sentence_features.of(sentences).to(self.device)
            return unit(split_backbone_head(self.encoder.text).head(features))
        return self.encoder.encode_text(sentences, batch_size=len(sentences))

    def embed_all(self, sentences: Sequence[str]) -> Float[Tensor, "n d"]:
        """Return unit embeddings of any number of sentences, on the CPU, a chunk at a time."""
        self.encode_sentences(sentences)
        parts = [sentences[i : i + self.chunk] for i in range(0, len(sentences), self.chunk)]
        return torch.cat([self.embed_sentences(part).cpu() for part in parts])

    def embed_clips(self, examples: Sequence[TrainingExample] | None = None) -> tuple[list[int], Float[Tensor, "n d"]]:
        """Return visual ids, and one unit embedding each, the mean over its clips; an unreadable file has none.

        They are of some examples, by default all, without augmentation.
        """
        clips = {ClipKey.of(example): example for example in (self.examples if examples is None else examples)}
        sums: dict[int, Tensor] = {}
        for visual_id, embeddings in self._clip_embeddings(clips):
            sums[visual_id] = sums.get(visual_id, 0) + embeddings.sum(0)
        if not sums:
            return [], torch.zeros(0, self.encoder.dim)
        return list(sums), unit(torch.stack(list(sums.values())))

    def _clip_embeddings(self, clips: Mapping[ClipKey, TrainingExample]) -> Iterator[tuple[int, Float[Tensor, "k d"]]]:
        """The visual id of each key, and the unit embeddings of its clips."""
        if "visual" not in self.cached_sides:
            for key, found in self.clip_reader.embed(clips):
                assert found.embeddings is not None
                yield key.visual_id, torch.from_numpy(found.embeddings)
            return
        self.encode_clips(clips)
        for shape in sorted({key.shape for key in clips}):
            keys = [key for key in clips if key.shape == shape and key in self.visual_features]
            at_once = max(1, self.chunk // shape[1])
            for part in (keys[i : i + at_once] for i in range(0, len(keys), at_once)):
                embeddings = self.embed_visual(self.visual_features.of(part)).cpu()
                yield from zip((key.visual_id for key in part), torch.split(embeddings, shape[1]), strict=True)
