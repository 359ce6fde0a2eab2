"""What frozen bodies make of clips and sentences: encoded once, and kept in the store.

A key holds the body's weights, the precision, how clips are cut and prepared, and the content of every file: whatever
changes a feature changes it. Clips are kept in one view or several: the first as they are, the others augmented, each
drawn once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from clipact import aliases
from clipact.cache import Cache, content_key
from clipact.clip_spec import ClipSpec
from clipact.data.dataset import EpochSampler, TextWithIds, draw_texts
from clipact.data.fingerprint import file_digest
from clipact.data.loader import Batch, Loader
from clipact.data.sources import TrainingExample
from clipact.errors import DataError
from clipact.models.dual_encoder import computing, normalise_frames
from clipact.models.towers.backbone_head import hash_backbone, split_backbone_head
from clipact.models.towers.tower import TextTower, VisualTower


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
    """Batches like `clipact.data.loader.Loader`'s, of features in place of frames."""

    def __init__(self, entries: Sequence[TrainingExample], features: VisualFeatures, *, seed: int, batch: int) -> None:
        self.entries, self.features, self.seed, self.batch = entries, features, seed, batch
        self.stream = EpochSampler(len(entries), seed=seed)

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """The batches of the steps from `first_step` up to and without `last_step`."""
        for step in range(first_step, last_step):
            yield self._batch(range(step * self.batch, (step + 1) * self.batch))

    def _batch(self, stretch: range) -> Batch:
        groups: list[list[tuple[int, int]]] = [[] for _ in self.features.groups]  # view, row
        rows: list[list[tuple[TextWithIds, ...]]] = [[] for _ in self.features.groups]  # what is said of each clip
        for place in self.stream.stretch(stretch.start, stretch.stop):
            entry = self.entries[place.entry]
            if (found := self.features.places.get(entry.visual_id)) is None:
                continue  # a file that could not be read, counted and named when it was met
            said, drawn = draw_texts(entry, seed=self.seed, epoch=place.epoch)
            group, row = found
            groups[group].append((drawn % self.features.views, row))
            rows[group] += [said] * entry.clips
        visual = []
        for features, chosen in zip(self.features.groups, groups, strict=True):
            if chosen:
                views, numbers = torch.tensor(chosen).unbind(1)
                visual.append(features[views, numbers].flatten(0, 1))
        if not visual:
            raise DataError(f"not one of the {self.batch} files of a batch could be read")
        repeats = tuple(len(said) for group in rows for said in group)
        pairs = [pair for group in rows for said in group for pair in said]
        visual_ids, text_ids, label_ids = torch.tensor([ids for _, ids in pairs]).unbind(1)
        return Batch(
            visual=tuple(visual),
            repeats=repeats,
            sentences=tuple(sentence for sentence, _ in pairs),
            visual_ids=visual_ids,
            text_ids=text_ids,
            label_ids=label_ids,
        )


Watch = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""A progress bar around items, told how many there are and what is done with them."""

_SHARD = 256  # entries or sentences in a file of the store


@torch.no_grad()
def encode_visuals(
    tower: VisualTower,
    entries: Iterable[TrainingExample],
    *,
    views: int,
    loader: Callable[[Sequence[TrainingExample], bool], Loader],
    precision: str,
    cache: Cache,
    watch: Watch,
) -> VisualFeatures:
    """The features of every clip of the entries in each view, from the store or from the files.

    `loader(entries, augmented)` reads files, unshuffled, a batch of 256 entries; it counts and names those that cannot
    be read, and they have no features.
    """
    body, made = hash_backbone(tower), VisualFeatures(views=views)
    visuals = {entry.visual_id: replace(entry, sentences=("",), drawn=1) for entry in entries}.values()
    for shape in sorted({(entry.frames, entry.clips) for entry in visuals}):
        alike = [entry for entry in visuals if (entry.frames, entry.clips) == shape]
        hashes = [f"{entry.name} {file_digest(entry.path)}" for entry in alike]
        rows: list[dict[int, Tensor]] = [{} for _ in range(views)]  # of each view, by visual id
        for augmented, numbers in ((False, range(1)), (True, range(1, views))):
            reader = loader(alike, augmented)
            key = (body, precision, aliases.cache_text(repr(tower.spec)), str(shape), repr(reader.samples.augment))
            for view, ids, features in _shards(tower, alike, hashes, numbers, reader, precision, key, cache, watch):
                rows[view] |= zip(ids, features, strict=True)
        whole = [visual_id for visual_id in rows[0] if all(visual_id in view for view in rows)]
        if whole:
            made.add(whole, torch.stack([torch.stack([view[visual_id] for visual_id in whole]) for view in rows]))
    return made


def _shards(
    tower: VisualTower,
    entries: Sequence[TrainingExample],
    hashes: Sequence[str],
    views: range,
    reader: Loader,
    precision: str,
    key: tuple[str, ...],
    cache: Cache,
    watch: Watch,
) -> Iterator[tuple[int, list[int], Float[Tensor, "n k ..."]]]:
    """View, visual ids and features of each shard; those that the store lacks are encoded and put there."""
    missing: list[tuple[int, range, str]] = []
    for view in views:
        for start in range(0, len(entries), _SHARD):
            part = range(start, min(start + _SHARD, len(entries)))
            name = content_key("clip features 2", *key, str(view), *hashes[part.start : part.stop])
            if (kept := cache.read("features", name)) is not None:
                yield view, [entries[i].visual_id for i in part], torch.from_numpy(kept["features"])
            else:
                missing.append((view, part, name))
    if not missing:
        return
    body, clips = split_backbone_head(tower).body, entries[0].clips
    # The reader's epoch is the view: what it draws for an entry hangs on that.
    stretches = (range(view * len(entries) + part.start, view * len(entries) + part.stop) for view, part, _ in missing)
    for (view, part, name), batch in watch(zip(missing, reader.load(stretches), strict=True), len(missing), "encoding"):
        prepared = (prepare_frames(piece, tower.spec, device=device_of(tower)) for piece in batch.visual)
        with computing(precision, device_of(tower)):
            pieces = [body(frames).float().cpu() for frames in prepared]
        features = rearrange(torch.cat(pieces), "(n k) ... -> n k ...", k=clips)
        if len(features) == len(part):  # a shard with broken files is read anew, so that they are named anew
            cache.write("features", name, {"features": features.numpy()})
        yield view, batch.visual_ids[::clips].tolist(), features


@torch.no_grad()
def encode_sentences(
    tower: TextTower, sentences: Iterable[str], *, precision: str, cache: Cache, watch: Watch
) -> SentenceFeatures:
    """The features of each distinct sentence, from the store or from the body."""
    # Sentences of like length share a shard, so that little is spent on padding.
    ordered = sorted(set(sentences), key=lambda sentence: (len(sentence), sentence))
    shards = [ordered[i : i + _SHARD] for i in range(0, len(ordered), _SHARD)]
    body, weights, rows = split_backbone_head(tower).body, hash_backbone(tower), []
    for shard in watch(shards, len(shards), "encoding sentences"):
        ids = tower.tokenize(shard)
        name = content_key("sentence features 2", weights, precision, str(tuple(ids.shape)), ids.numpy().tobytes())
        if (kept := cache.read("features", name)) is None:
            with computing(precision, device_of(tower)):
                kept = {"features": body(ids.to(device_of(tower))).float().cpu().numpy()}
            cache.write("features", name, kept)
        rows.append(torch.from_numpy(kept["features"]))
    return SentenceFeatures(ordered, torch.cat(rows))


def prepare_frames(
    frames: UInt8[Tensor, "b t h w c"], spec: ClipSpec, *, device: torch.device
) -> Float[Tensor, "b t c h w"]:
    """The frames as a visual tower takes them, on its device."""
    pictures = rearrange(frames, "b t h w c -> (b t) h w c").numpy()
    return rearrange(normalise_frames(pictures, spec, device=device), "(b t) c h w -> b t c h w", b=len(frames))


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters lie."""
    return next(module.parameters()).device
