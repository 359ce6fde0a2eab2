"""Embed videos into a file of features, which is there when all of them are in it."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from clipact.atomic_write import tidy
from clipact.clip_spec import ClipSpec
from clipact.embed.clip_source import ClipSource
from clipact.embed.embed_clips import EmbedRequest, embed_clips
from clipact.embed.feature_cache import DECODERS
from clipact.embed.feature_row import FeatureMetadata, FeatureRow
from clipact.embed.feature_writer import FeatureWriter
from clipact.embed.options import EmbedOptions
from clipact.embed.video_embedding import VideoEmbedding
from clipact.engines.clip_encoder import ClipEncoder
from clipact.engines.engine import Engine
from clipact.errors import UsageError


def write_features(
    path: Path,
    rows: Iterable[ClipSource],
    model: Engine,
    *,
    per_frame: bool = False,
    spec: ClipSpec | None = None,
    clips: int = 1,
    options: EmbedOptions,
    identity: str = "",
) -> Iterator[VideoEmbedding]:
    """Yield what is found of each row while it is written; the file is whole when the last one was taken.

    Args:
        path: The Parquet file.
        rows: Videos, or parts of them.
        model: What encodes.
        per_frame: Whether there is a row a frame, with the backbone's features, in place of a row a video.
        spec: How clips are prepared, instead of the model's own way.
        clips: Clips a video, spread over it.
        options: How it is carried out; a journal is deleted at the end.
        identity: As for `embed_clips`.

    Raises:
        UsageError: Features per frame of a model that does not see each frame by itself.
        ModelError: The model's text embeddings depend on the video.
    """
    if model.text_depends_on_video:
        raise model.text_needs_video()
    encoder = model.clip_encoder(spec, clips=clips)
    if per_frame and not encoder.by_frame:
        raise UsageError(
            f"{model.name} sees the frames of a clip together: it has no features of single frames; leave out --frames"
        )
    metadata = features_metadata(model, encoder, per_frame=per_frame)
    request = EmbedRequest(encoder=encoder, keep_clips=False, features=per_frame)
    tidy(path)
    with FeatureWriter(path, metadata) as file:
        for found in embed_clips(rows, request, options, identity=identity):
            file.add(_row(found))
            yield found
    if options.journal is not None:
        options.journal.unlink(missing_ok=True)


def features_metadata(model: Engine, encoder: ClipEncoder, *, per_frame: bool = False) -> FeatureMetadata:
    """Return what a file of an encoder's embeddings, or of its backbone's features, says of all its rows."""
    dim = model.dim
    if per_frame:
        dim = encoder.encode(np.zeros((1, 1, *encoder.spec.size, 3), np.uint8)).shape[-1]
    return FeatureMetadata(
        model=model.name,
        model_hash=model.key,
        dim=dim,
        clip=encoder.spec,
        clips=encoder.clips,
        crops=encoder.crops,
        precision=model.precision,
        decoders=DECODERS,
        per_frame=per_frame,
    )


def _row(found: VideoEmbedding) -> FeatureRow:
    start, end = found.span
    row = partial(FeatureRow, path=found.name, sha256=found.digest or None, start_seconds=start, end_seconds=end)
    if found.cause:
        return row(error=found.cause)
    if found.embeddings is not None:
        return row(embedding=found.embeddings[0])
    assert found.features is not None
    # A frame that clips share, or that a short clip repeats, is there once.
    first: dict[int, tuple[float, np.ndarray]] = {}
    for stamps, features in zip(found.stamps, found.features, strict=True):
        for stamp, vector in zip(stamps, features, strict=True):
            first.setdefault(stamp.index, (stamp.seconds, vector))
    numbers = sorted(first)
    return row(
        embedding=np.stack([first[number][1] for number in numbers]),
        frames=np.array(numbers, np.int32),
        seconds=np.array([first[number][0] for number in numbers], np.float64),
    )
