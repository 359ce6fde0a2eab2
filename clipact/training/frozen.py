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

from clipact.clip_spec import ClipSpec
from clipact.data.fingerprint import file_digest
from clipact.data.loader import Loader
from clipact.data.sources import Entry
from clipact.dual_encoder import computing
from clipact.store import Store, content_key
from clipact.towers.parts import hash_body, split
from clipact.towers.tower import TextTower, VisualTower
from clipact.training.feature_batches import SentenceFeatures, VisualFeatures
from clipact.video.normalise import normalise_frames

Watch = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""A progress bar around items, told how many there are and what is done with them."""

_SHARD = 256  # entries or sentences in a file of the store


@torch.no_grad()
def encode_visuals(
    tower: VisualTower,
    entries: Iterable[Entry],
    *,
    views: int,
    loader: Callable[[Sequence[Entry], bool], Loader],
    precision: str,
    store: Store,
    watch: Watch,
) -> VisualFeatures:
    """The features of every clip of the entries in each view, from the store or from the files.

    `loader(entries, augmented)` reads files, unshuffled, a batch of 256 entries; it counts and names those that cannot
    be read, and they have no features.
    """
    body, made = hash_body(tower), VisualFeatures(views=views)
    visuals = {entry.visual_id: replace(entry, sentences=("",), drawn=1) for entry in entries}.values()
    for shape in sorted({(entry.frames, entry.clips) for entry in visuals}):
        alike = [entry for entry in visuals if (entry.frames, entry.clips) == shape]
        hashes = [f"{entry.name} {file_digest(entry.path)}" for entry in alike]
        rows: list[dict[int, Tensor]] = [{} for _ in range(views)]  # of each view, by visual id
        for augmented, numbers in ((False, range(1)), (True, range(1, views))):
            reader = loader(alike, augmented)
            key = (body, precision, repr(tower.spec), str(shape), repr(reader.samples.augment))
            for view, ids, features in _shards(tower, alike, hashes, numbers, reader, precision, key, store, watch):
                rows[view] |= zip(ids, features, strict=True)
        whole = [visual_id for visual_id in rows[0] if all(visual_id in view for view in rows)]
        if whole:
            made.add(whole, torch.stack([torch.stack([view[visual_id] for visual_id in whole]) for view in rows]))
    return made


def _shards(
    tower: VisualTower,
    entries: Sequence[Entry],
    hashes: Sequence[str],
    views: range,
    reader: Loader,
    precision: str,
    key: tuple[str, ...],
    store: Store,
    watch: Watch,
) -> Iterator[tuple[int, list[int], Float[Tensor, "n k ..."]]]:
    """View, visual ids and features of each shard; those that the store lacks are encoded and put there."""
    missing: list[tuple[int, range, str]] = []
    for view in views:
        for start in range(0, len(entries), _SHARD):
            part = range(start, min(start + _SHARD, len(entries)))
            name = content_key("clip features 2", *key, str(view), *hashes[part.start : part.stop])
            if (kept := store.read("features", name)) is not None:
                yield view, [entries[i].visual_id for i in part], torch.from_numpy(kept["features"])
            else:
                missing.append((view, part, name))
    if not missing:
        return
    body, clips = split(tower).body, entries[0].clips
    # The reader's epoch is the view: what it draws for an entry hangs on that.
    stretches = (range(view * len(entries) + part.start, view * len(entries) + part.stop) for view, part, _ in missing)
    for (view, part, name), batch in watch(zip(missing, reader.load(stretches), strict=True), len(missing), "encoding"):
        prepared = (prepare(piece, tower.spec, device=device_of(tower)) for piece in batch.visual)
        with computing(precision, device_of(tower)):
            pieces = [body(frames).float().cpu() for frames in prepared]
        features = rearrange(torch.cat(pieces), "(n k) ... -> n k ...", k=clips)
        if len(features) == len(part):  # a shard with broken files is read anew, so that they are named anew
            store.write("features", name, {"features": features.numpy()})
        yield view, batch.visual_ids[::clips].tolist(), features


@torch.no_grad()
def encode_sentences(
    tower: TextTower, sentences: Iterable[str], *, precision: str, store: Store, watch: Watch
) -> SentenceFeatures:
    """The features of each distinct sentence, from the store or from the body."""
    # Sentences of like length share a shard, so that little is spent on padding.
    ordered = sorted(set(sentences), key=lambda sentence: (len(sentence), sentence))
    shards = [ordered[i : i + _SHARD] for i in range(0, len(ordered), _SHARD)]
    body, weights, rows = split(tower).body, hash_body(tower), []
    for shard in watch(shards, len(shards), "encoding sentences"):
        ids = tower.tokenize(shard)
        name = content_key("sentence features 2", weights, precision, str(tuple(ids.shape)), ids.numpy().tobytes())
        if (kept := store.read("features", name)) is None:
            with computing(precision, device_of(tower)):
                kept = {"features": body(ids.to(device_of(tower))).float().cpu().numpy()}
            store.write("features", name, kept)
        rows.append(torch.from_numpy(kept["features"]))
    return SentenceFeatures(ordered, torch.cat(rows))


def prepare(frames: UInt8[Tensor, "b t h w c"], spec: ClipSpec, *, device: torch.device) -> Float[Tensor, "b t c h w"]:
    """The frames as a visual tower takes them, on its device."""
    pictures = rearrange(frames, "b t h w c -> (b t) h w c").numpy()
    return rearrange(normalise_frames(pictures, spec, device=device), "(b t) c h w -> b t c h w", b=len(frames))


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters lie."""
    return next(module.parameters()).device
