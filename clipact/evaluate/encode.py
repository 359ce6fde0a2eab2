"""Encode the samples of an evaluation with the embedding engine."""

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipact.clip_spec import Averaging
from clipact.embed.clip_source import ClipSource
from clipact.embed.embed_clips import EmbedRequest, embed_clips
from clipact.embed.options import EmbedOptions
from clipact.embed.video_embedding import VideoEmbedding
from clipact.engines.clip_encoder import ClipEncoder
from clipact.engines.engine import Engine
from clipact.evaluate.samples import EvalSample, EvalSamples


@dataclass(frozen=True, kw_only=True)
class EvalOptions(EmbedOptions):
    """Say how an evaluation is carried out: nothing here changes its result by more than rounding.

    run       more to say in the result: command, protocol, metric
    features  a file of `clipact embed`, whose embeddings stand for those of the videos that are in it
    """

    run: Mapping[str, Any] = field(default_factory=dict)
    features: Path | None = None


def encode_samples(
    samples: EvalSamples,
    model: Engine,
    clip_encoder: ClipEncoder,
    options: EvalOptions,
    *,
    averaging: Averaging = "embeddings",
    seconds: dict[str, float] | None = None,
) -> list[VideoEmbedding]:
    """Embed each sample, in order; what a resumed journal holds is not embedded again.

    Args:
        samples: All of them.
        model: Whose embeddings they are.
        clip_encoder: What encodes.
        options: How it is carried out.
        averaging: Over the clips of a file: for "embeddings" their mean is given, else every clip's own.
        seconds: Is added to, by what the time was spent on.
    """
    keep_clips = averaging != "embeddings"
    rows = [clip_source(item) for item in samples.items]
    if options.features is None:
        request = EmbedRequest(encoder=clip_encoder, keep_clips=keep_clips)
        return list(embed_clips(rows, request, options, seconds=seconds, description="evaluating"))
    from clipact.embed.feature_lookup import FeatureLookup

    with closing(FeatureLookup(options.features, model, clip_encoder, keep_clips=keep_clips)) as lookup:
        request = EmbedRequest(encoder=clip_encoder, keep_clips=keep_clips, known=lookup.find)
        found = list(embed_clips(rows, request, options, seconds=seconds, description="evaluating"))
        lookup.check_found(asked=len(rows))
        return found


def clip_source(sample: EvalSample) -> ClipSource:
    """Return the row of a sample."""
    return ClipSource(
        source=sample.path, name=sample.name, start_seconds=sample.start_seconds, end_seconds=sample.end_seconds
    )


def add_seconds(seconds: dict[str, float], activity: str, start: float) -> None:
    """Add the time since `start` (time.perf_counter) to what it was spent on."""
    seconds[activity] = seconds.get(activity, 0.0) + time.perf_counter() - start
