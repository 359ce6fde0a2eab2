"""Embed videos and sentences in one call each, as arrays of unit vectors."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32

from clipact.cache import Cache
from clipact.embed.clip_source import ClipSource
from clipact.embed.embed_clips import EmbedRequest, embed_clips
from clipact.embed.options import EmbedOptions
from clipact.embed.sentences import sentence_embedder
from clipact.engines.engine import Engine
from clipact.progress import ProgressBar, no_progress
from clipact.prompts import clean
from clipact.video.open_source import VideoSource, source_name


def embed_videos(
    videos: Iterable[VideoSource | ClipSource],
    model: Engine | str = "mini",
    *,
    frames: int | None = None,
    clips: int = 1,
    options: EmbedOptions | None = None,
) -> Float32[np.ndarray, "n d"]:
    """Embed videos as unit vectors, one each: the mean over the clips of a video.

    Args:
        videos: Files, folders of numbered pictures, addresses, bytes, arrays; or `ClipSource` for parts of them.
        model: A model's name, or what `load_model` gives.
        frames: Frames a clip, instead of the number that the model was made for.
        clips: Clips a video, spread over it.
        options: Workers, cache, journal; by default features are kept in the default cache.

    Raises:
        VideoError: One cannot be read; it names the first. `clipact.embed.embed_clips.embed_clips` goes on.
    """
    engine = _engine(model)
    if engine.text_depends_on_video:
        raise engine.text_needs_video()
    encoder = engine.clip_encoder(engine.spec.with_frames(frames), clips=clips)
    rows = [one if isinstance(one, ClipSource) else ClipSource(source=one, name=source_name(one)) for one in videos]
    vectors = np.empty((len(rows), engine.dim), np.float32)
    request = EmbedRequest(encoder=encoder, keep_clips=False)
    for row, found in enumerate(embed_clips(rows, request, options or EmbedOptions(cache=Cache()))):
        if found.embeddings is None:
            assert found.error is not None
            raise found.error
        vectors[row] = found.embeddings[0]
    return vectors


def embed_text(
    sentences: Sequence[str],
    model: Engine | str = "mini",
    *,
    cache: Cache | None = None,
    progress: ProgressBar = no_progress,
) -> Float32[np.ndarray, "n d"]:
    """Embed sentences as unit vectors, each as it stands: no template is used.

    Args:
        sentences: Such as "a person drinks from a cup".
        model: A model's name, or what `load_model` gives.
        cache: Where embeddings are kept, sentence by sentence; the default cache when None.
        progress: Shows the batches that are encoded.

    Raises:
        ModelError: The model's sentences have no embedding without a video.
    """
    engine = _engine(model)
    if engine.text_depends_on_video:
        raise engine.text_needs_video()
    return sentence_embedder(engine, cache=cache or Cache(), progress=progress)([clean(one) for one in sentences])


def _engine(model: Engine | str) -> Engine:
    if isinstance(model, Engine):
        return model
    from clipact.models.zoo import load_model

    return load_model(model, precision="auto", defer_text=True)
