"""Batches of a step and the encoders of both sides, for the steps in which the same parameters are trained.

A trainable backbone is given frames and sentences. A frozen one may run once: its features are kept in the cache, and
each step runs the head alone. A cache key holds the backbone's weights, the precision, how clips are cut and prepared,
and the content of every file. Clips are kept in one version or several: the first as it is, the others augmented, each
drawn once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from clipact import aliases
from clipact.cache import Cache, content_key
from clipact.clip_spec import ClipSpec
from clipact.data.fingerprint import file_digest
from clipact.data.sources import TrainingExample
from clipact.errors import DataError
from clipact.models.dual_encoder import DualEncoder, computing, normalise_frames, unit
from clipact.models.towers.backbone_head import hash_backbone, split_backbone_head
from clipact.models.towers.tower import TextTower, VisualTower
from clipact.progress import ProgressBar, no_progress
from clipact.train.chunks import Encoder
from clipact.train.loader import Batch, ClipTextDataset, EpochSampler, Loader, TextWithIds, draw_texts
from clipact.train.recipe import DataConfig
from clipact.video.augment import Augment

_SHARD = 256  # examples or sentences in a file of the cache
_EXAMPLES_AT_ONCE = 256  # read as one batch where no gradient is asked for
_FRAMES_AT_ONCE = 16  # encoded as one piece there: more is no faster on a CPU, and slower from 64 on


class VisualFeatures:
    """Features of clips in every view, by visual id; clips of one shape lie in one tensor."""

    def __init__(self, *, views: int) -> None:
        self.views = views
        self.groups: list[Float[Tensor, "v n k ..."]] = []
        self.places: dict[int, tuple[int, int]] = {}  # visual id -> group, row

    def add(self, visual_ids: Sequence[int], features: Float[Tensor, "v n k ..."]) -> None:
        """Take in a row for each visual id."""
        self.places |= {visual_id: (len(self.groups), row) for row, visual_id in enumerate(visual_ids)}
        self.groups.append(features)

    def plain(self) -> Iterator[tuple[list[int], Float[Tensor, "m ..."]]]:
        """Visual ids and features of each clip in the first view, a group at a time."""
        for number, features in enumerate(self.groups):
            visual_ids = [visual_id for visual_id, (group, _) in self.places.items() if group == number]
            clips = features.shape[2]
            yield [visual_id for visual_id in visual_ids for _ in range(clips)], features[0].flatten(0, 1)


class SentenceFeatures:
    """Features of sentences."""

    def __init__(self, sentences: Sequence[str], features: Float[Tensor, "n f"]) -> None:
        self.features = features
        self.places = {sentence: row for row, sentence in enumerate(sentences)}

    def of(self, sentences: Sequence[str]) -> Float[Tensor, "m f"]:
        """A row a sentence."""
        return self.features[[self.places[sentence] for sentence in sentences]]


class FeatureLoader:
    """Batches like `clipact.train.loader.Loader`'s, of features in place of frames."""

    def __init__(self, examples: Sequence[TrainingExample], features: VisualFeatures, *, seed: int, batch: int) -> None:
        self.examples, self.features, self.seed, self.batch = examples, features, seed, batch
        self.sampler = EpochSampler(len(examples), seed=seed)

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """The batches of the steps from `first_step` up to and without `last_step`."""
        for step in range(first_step, last_step):
            yield self._batch(range(step * self.batch, (step + 1) * self.batch))

    def _batch(self, span: range) -> Batch:
        groups: list[list[tuple[int, int]]] = [[] for _ in self.features.groups]  # view, row
        rows: list[list[tuple[TextWithIds, ...]]] = [[] for _ in self.features.groups]  # the texts of each clip
        for position in self.sampler.positions(span.start, span.stop):
            example = self.examples[position.example]
            if (found := self.features.places.get(example.visual_id)) is None:
                continue  # a file that could not be read, counted and named when it was met
            texts, drawn = draw_texts(example, seed=self.seed, epoch=position.epoch)
            group, row = found
            groups[group].append((drawn % self.features.views, row))
            rows[group] += [texts] * example.clips
        visual = []
        for features, chosen in zip(self.features.groups, groups, strict=True):
            if chosen:
                views, numbers = torch.tensor(chosen).unbind(1)
                visual.append(features[views, numbers].flatten(0, 1))
        if not visual:
            raise DataError(f"not one of the {self.batch} files of a batch could be read")
        repeats = tuple(len(texts) for group in rows for texts in group)
        pairs = [pair for group in rows for texts in group for pair in texts]
        visual_ids, text_ids, label_ids = torch.tensor([ids for _, ids in pairs]).unbind(1)
        return Batch(
            visual=tuple(visual),
            repeats=repeats,
            sentences=tuple(sentence for sentence, _ in pairs),
            visual_ids=visual_ids,
            text_ids=text_ids,
            label_ids=label_ids,
        )


@torch.no_grad()
def encode_visuals(
    tower: VisualTower,
    examples: Iterable[TrainingExample],
    *,
    views: int,
    loader: Callable[[Sequence[TrainingExample], bool], Loader],
    precision: str,
    cache: Cache,
    progress: ProgressBar,
) -> VisualFeatures:
    """The features of every clip of the examples in each view, from the cache or from the files.

    `loader(examples, augmented)` reads files, unshuffled, a batch of 256 examples; it counts and names those that
    cannot be read, and they have no features.
    """
    body, made = hash_backbone(tower), VisualFeatures(views=views)
    visuals = {example.visual_id: replace(example, sentences=("",), sentences_drawn=1) for example in examples}.values()
    for shape in sorted({(example.frames, example.clips) for example in visuals}):
        alike = [example for example in visuals if (example.frames, example.clips) == shape]
        hashes = [f"{example.name} {file_digest(example.path)}" for example in alike]
        rows: list[dict[int, Tensor]] = [{} for _ in range(views)]  # of each view, by visual id
        for augmented, numbers in ((False, range(1)), (True, range(1, views))):
            reader = loader(alike, augmented)
            key = (body, precision, aliases.cache_text(repr(tower.spec)), str(shape), repr(reader.samples.augment))
            for view, ids, features in _shards(tower, alike, hashes, numbers, reader, precision, key, cache, progress):
                rows[view] |= zip(ids, features, strict=True)
        whole = [visual_id for visual_id in rows[0] if all(visual_id in view for view in rows)]
        if whole:
            made.add(whole, torch.stack([torch.stack([view[visual_id] for visual_id in whole]) for view in rows]))
    return made


def _shards(
    tower: VisualTower,
    examples: Sequence[TrainingExample],
    hashes: Sequence[str],
    views: range,
    reader: Loader,
    precision: str,
    key: tuple[str, ...],
    cache: Cache,
    progress: ProgressBar,
) -> Iterator[tuple[int, list[int], Float[Tensor, "n k ..."]]]:
    """View, visual ids and features of each shard; those that the cache lacks are encoded and written to it."""
    missing: list[tuple[int, range, str]] = []
    for view in views:
        for start in range(0, len(examples), _SHARD):
            part = range(start, min(start + _SHARD, len(examples)))
            name = content_key("clip features 2", *key, str(view), *hashes[part.start : part.stop])
            if (kept := cache.read("features", name)) is not None:
                yield view, [examples[i].visual_id for i in part], torch.from_numpy(kept["features"])
            else:
                missing.append((view, part, name))
    if not missing:
        return
    body, clips, device = split_backbone_head(tower).body, examples[0].clips, next(tower.parameters()).device
    # The reader's epoch is the view: what it draws for an example depends on that.
    spans = (range(view * len(examples) + part.start, view * len(examples) + part.stop) for view, part, _ in missing)
    for (view, part, name), batch in progress(zip(missing, reader.load(spans), strict=True), len(missing), "encoding"):
        prepared = (prepare_frames(piece, tower.spec, device=device) for piece in batch.visual)
        with computing(precision, device):
            pieces = [body(frames).float().cpu() for frames in prepared]
        features = rearrange(torch.cat(pieces), "(n k) ... -> n k ...", k=clips)
        if len(features) == len(part):  # a shard with unreadable files is read anew, so that they are named anew
            cache.write("features", name, {"features": features.numpy()})
        yield view, batch.visual_ids[::clips].tolist(), features


@torch.no_grad()
def encode_sentences(
    tower: TextTower, sentences: Iterable[str], *, precision: str, cache: Cache, progress: ProgressBar
) -> SentenceFeatures:
    """The features of each distinct sentence, from the cache or from the backbone."""
    # Sentences of like length share a shard, so that little is spent on padding.
    ordered = sorted(set(sentences), key=lambda sentence: (len(sentence), sentence))
    shards = [ordered[i : i + _SHARD] for i in range(0, len(ordered), _SHARD)]
    body, weights, rows = split_backbone_head(tower).body, hash_backbone(tower), []
    device = next(tower.parameters()).device
    for shard in progress(shards, len(shards), "encoding sentences"):
        ids = tower.tokenize(shard)
        name = content_key("sentence features 2", weights, precision, str(tuple(ids.shape)), ids.numpy().tobytes())
        if (kept := cache.read("features", name)) is None:
            with computing(precision, device):
                kept = {"features": body(ids.to(device)).float().cpu().numpy()}
            cache.write("features", name, kept)
        rows.append(torch.from_numpy(kept["features"]))
    return SentenceFeatures(ordered, torch.cat(rows))


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
        precision: Of frozen backbones, a key of PRECISIONS.
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
    ) -> None:
        self.encoder, self.examples, self.data, self.cached_sides = encoder, examples, data, cached_sides
        self.chunk, self.seed = chunk, seed
        self.unreadable_files, self.cache, self.progress, self.unaugmented = (
            unreadable_files,
            cache,
            progress,
            unaugmented,
        )
        self.precision = precision
        self.device = encoder.log_scale.device

    @property
    def encoders(self) -> tuple[Encoder, Encoder]:
        """The two sides, as gradient caching takes them."""
        visual, text = self.encoder.visual, self.encoder.text
        return Encoder("visual", visual, self.embed_visual), Encoder("text", text, self.embed_sentences)

    def batches(self, first: int, last: int, *, batch: int) -> Iterator[Batch]:
        """The batches from number `first` up to and without `last`, of `batch` examples each."""
        if "text" in self.cached_sides:
            _ = self.sentence_features  # now, not in the first step: there, precision may be halved
        if "visual" in self.cached_sides:
            return FeatureLoader(self.examples, self.clip_features, seed=self.seed, batch=batch).batches(first, last)
        samples = ClipTextDataset(self.examples, self.encoder.spec, seed=self.seed, augment=self.data.augment)
        return self._loader(samples, batch=batch, chunk=self.chunk, shuffled=True).batches(first, last)

    def embed_visual(self, rows: Tensor) -> Float[Tensor, "b d"]:
        """Return unit embeddings of clips, or of their cached features."""
        if "visual" in self.cached_sides:
            return unit(split_backbone_head(self.encoder.visual).head(rows.to(self.device)))
        return self.encoder.encode_video(prepare_frames(rows, self.encoder.spec, device=self.device))

    def embed_sentences(self, sentences: Sequence[str]) -> Float[Tensor, "b d"]:
        """Return unit embeddings of sentences, from their cached features where there are any."""
        if "text" in self.cached_sides:
            features = self.sentence_features.of(sentences).to(self.device)
            return unit(split_backbone_head(self.encoder.text).head(features))
        return self.encoder.encode_text(sentences, batch_size=len(sentences))

    def embed_all(self, sentences: Sequence[str]) -> Float[Tensor, "n d"]:
        """Return unit embeddings of any number of sentences, on the CPU, a chunk at a time."""
        parts = [sentences[i : i + self.chunk] for i in range(0, len(sentences), self.chunk)]
        return torch.cat([self.embed_sentences(part).cpu() for part in parts])

    def embed_clips(self) -> tuple[list[int], Float[Tensor, "n d"]]:
        """Return visual ids, and one unit embedding each, the mean over its clips; an unreadable file has none."""
        sums: dict[int, Tensor] = {}
        for rows, visual_ids in self._clips():
            for visual_id, embedding in zip(visual_ids, self.embed_visual(rows).cpu(), strict=True):
                sums[visual_id] = sums.get(visual_id, 0) + embedding
        if not sums:
            raise DataError("none of the files to evaluate on could be read; `clipact data check` says why")
        return list(sums), unit(torch.stack(list(sums.values())))

    def _clips(self) -> Iterator[tuple[Tensor, list[int]]]:
        """Rows to embed at once, and their visual ids."""
        if "visual" in self.cached_sides:
            for visual_ids, features in self.clip_features.plain():
                for i in range(0, len(features), self.chunk):
                    yield features[i : i + self.chunk], visual_ids[i : i + self.chunk]
            return
        for batch in self._in_order([replace(example, sentences_drawn=1) for example in self.examples]).one_epoch():
            start = 0
            for piece in batch.visual:
                yield piece, batch.visual_ids[start : start + len(piece)].tolist()
                start += len(piece)

    @cached_property
    def clip_features(self) -> VisualFeatures:
        """Features of the examples' clips, from the frozen visual backbone."""

        def loader(examples: Sequence[TrainingExample], augmented: bool) -> Loader:
            return self._in_order(examples, augment=self.data.augment if augmented else None)

        return encode_visuals(
            self.encoder.visual,
            self.examples,
            views=1 if self.unaugmented else self.data.cached_augmentations,
            loader=loader,
            precision=self.precision,
            cache=self.cache,
            progress=self.progress,
        )

    @cached_property
    def sentence_features(self) -> SentenceFeatures:
        """Features of every sentence that the examples may give, from the frozen text backbone."""
        sentences = (sentence for example in self.examples for sentence in example.possible_sentences)
        return encode_sentences(
            self.encoder.text, sentences, precision=self.precision, cache=self.cache, progress=self.progress
        )

    def _in_order(self, examples: Sequence[TrainingExample], *, augment: Augment | None = None) -> Loader:
        samples = ClipTextDataset(examples, self.encoder.spec, seed=0, augment=augment)
        return self._loader(samples, batch=_EXAMPLES_AT_ONCE, chunk=_FRAMES_AT_ONCE, shuffled=False)

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
