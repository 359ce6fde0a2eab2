"""How long frozen backbones take to encode what a run draws: measured on a few steps, counted over all of them.

What the cache has costs less than what is fresh, so that both are measured: fresh, by encoding what the first steps
draw into an empty cache; cached, by looking for some of the run's clips and for all of its sentences.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from time import monotonic

import numpy as np

from clipact.cache import Cache
from clipact.data.sources import TrainingExample
from clipact.train.contrastive import ContrastiveTrainer
from clipact.train.distillation import Teachers
from clipact.train.drawn_inputs import ClipKey
from clipact.train.encoded_batches import EncodedBatches

_LOOKED_UP = 64  # clips whose files are read for their hash: the share in the cache is known to within 12 %
_READ_SENTENCES = 256


@dataclass(frozen=True, kw_only=True)
class EncodingPlan:
    """Encoding by frozen backbones, over a whole run.

    clips             files, or parts of them, each version counted, whatever number of clips they give
    cached_clips      of these: how many the cache has, judging by a sample
    clip_seconds      how long all of them take
    clip_bytes        what their features take in memory
    sentences, cached_sentences, sentence_seconds, sentence_bytes  the same of sentences; those in the cache are counted
    """

    clips: int = 0
    cached_clips: int = 0
    clip_seconds: float = 0.0
    clip_bytes: int = 0
    sentences: int = 0
    cached_sentences: int = 0
    sentence_seconds: float = 0.0
    sentence_bytes: int = 0

    def __add__(self, other: "EncodingPlan") -> "EncodingPlan":
        sums = {one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)}
        return EncodingPlan(**sums)


@dataclass(frozen=True, kw_only=True)
class RunEncoding:
    """Encoding by the model's own frozen backbones, and by those of all teachers."""

    own: EncodingPlan = field(default_factory=EncodingPlan)
    teachers: EncodingPlan = field(default_factory=EncodingPlan)

    def added_bytes(self, encoded: EncodedBatches, teachers: Teachers | None) -> int:
        """Return what the features of the whole run take more than those that are there; 0 on CUDA, outside of it."""
        if encoded.device.type == "cuda":
            return 0
        sides = {"visual": self.own.clip_bytes, "text": self.own.sentence_bytes}
        whole = sum(bytes_ for side, bytes_ in sides.items() if side in encoded.cached_sides)
        whole += self.teachers.clip_bytes + self.teachers.sentence_bytes
        every = (encoded, *(() if teachers is None else teachers.encoded))
        there = sum(one.visual_features.total_bytes + one.sentence_features.total_bytes for one in every)
        return max(0, whole - there)


def plan_run_encoding(
    trainer: ContrastiveTrainer, encoded: EncodedBatches, teachers: Teachers | None, *, measured: int
) -> RunEncoding:
    """Encode what the first batches draw, and return the plan of all that the run does.

    Args:
        trainer: Of the run; its cache is read alone.
        encoded: Of the first phase, and `teachers`: they have an empty cache and nothing in memory.
        teachers: None without distillation.
        measured: How many batches are encoded.
    """
    recipe, steps = trainer.recipe, trainer.steps
    frozen = {  # a tower that is trained whole from some step on is frozen up to there
        side: max((last for first, last in trainer.phases if config.at(first) != "all"), default=0)
        for side, config in (("visual", recipe.visual), ("text", recipe.text))
        if side in encoded.cached_sides
    }
    plan = partial(plan_encoding, cache=trainer.cache, measured=measured, batch=recipe.train.batch)
    own = plan(encoded, clip_steps=frozen.get("visual", 0), sentence_steps=frozen.get("text", 0))
    others = EncodingPlan()
    for one in () if teachers is None else teachers.encoded:
        others += plan(one, clip_steps=steps, sentence_steps=steps)
    return RunEncoding(own=own, teachers=others)


def plan_encoding(
    encoded: EncodedBatches, *, cache: Cache, measured: int, clip_steps: int, sentence_steps: int, batch: int
) -> EncodingPlan:
    """Encode what the first batches draw, and return the plan of all.

    Args:
        encoded: Has an empty cache and nothing in memory; afterwards the features of the first batches.
        cache: Where the run will look for features; it is read alone.
        measured: How many batches are encoded.
        clip_steps: Up to which step clips are drawn whose backbone is frozen; 0 for none.
        sentence_steps: The same of sentences.
        batch: Examples in a batch.
    """
    plan, drawn = EncodingPlan(), encoded.draw(0, measured, batch=batch)
    if clip_steps:
        plan += _plan_clips(encoded, cache, drawn.clips, encoded.draw(0, clip_steps, batch=batch).clips)
    if sentence_steps:
        whole = encoded.draw(0, sentence_steps, batch=batch).sentences
        plan += _plan_sentences(encoded, cache, drawn.sentences, whole)
    return plan


def estimate_seconds(*, fresh: float, cached: float, count: int, cached_count: int) -> float:
    """Return how long `count` take of which so many are cached, at these seconds each."""
    return (count - cached_count) * fresh + cached_count * cached


def _plan_clips(
    encoded: EncodedBatches,
    cache: Cache,
    drawn: Mapping[ClipKey, TrainingExample],
    whole: Mapping[ClipKey, TrainingExample],
) -> EncodingPlan:
    keys, reader = list(whole), encoded.in_cache(cache).clip_reader
    chosen = np.random.default_rng(0).permutation(len(keys))[:_LOOKED_UP]
    _ = reader.weights_key  # hashed once a run
    begun = monotonic()
    found = reader.count_cached({keys[i]: whole[keys[i]] for i in chosen})
    cached = (monotonic() - begun) / len(chosen)
    _ = encoded.clip_reader.weights_key
    encoded.clip_reader.warm_up(drawn)
    begun = monotonic()
    encoded.encode_clips(drawn)
    seconds = monotonic() - begun
    # Sources differ in how long their clips are: by frames, so that none has to be among what was measured.
    more = _frames(whole) / _frames(drawn)
    cached_count = round(len(keys) * found / len(chosen))
    return EncodingPlan(
        clips=len(keys),
        cached_clips=cached_count,
        clip_seconds=estimate_seconds(
            fresh=seconds * more / len(keys), cached=cached, count=len(keys), cached_count=cached_count
        ),
        clip_bytes=round(encoded.visual_features.total_bytes * more),
    )


def _plan_sentences(
    encoded: EncodedBatches, cache: Cache, drawn: tuple[str, ...], whole: tuple[str, ...]
) -> EncodingPlan:
    kept = encoded.in_cache(cache)
    absent = set(kept.sentence_reader.find_absent(whole))
    held = [sentence for sentence in whole if sentence not in absent]
    begun = monotonic()
    kept.encode_sentences(held[:_READ_SENTENCES])
    cached = (monotonic() - begun) / max(1, len(held[:_READ_SENTENCES]))
    encoded.sentence_reader.warm_up(drawn[0])
    begun = monotonic()
    encoded.encode_sentences(drawn)
    fresh = (monotonic() - begun) / len(drawn)
    return EncodingPlan(
        sentences=len(whole),
        cached_sentences=len(held),
        sentence_seconds=estimate_seconds(fresh=fresh, cached=cached, count=len(whole), cached_count=len(held)),
        sentence_bytes=round(encoded.sentence_features.total_bytes * len(whole) / len(drawn)),
    )


def _frames(clips: Mapping[ClipKey, TrainingExample]) -> int:
    return sum(key.frames * key.clips for key in clips)
