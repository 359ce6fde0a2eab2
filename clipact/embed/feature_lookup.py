"""Take the embeddings of rows from a file of features, in place of decoding and encoding them."""

import threading
from dataclasses import replace
from pathlib import Path

from clipact.clip_spec import FrameStamp
from clipact.data.fingerprint import source_digest
from clipact.embed.clip_source import ClipSource
from clipact.embed.feature_file import FeatureFile
from clipact.embed.feature_row import FeatureRow
from clipact.embed.video_embedding import VideoEmbedding
from clipact.embed.write_features import features_metadata
from clipact.engines.clip_encoder import ClipEncoder
from clipact.engines.engine import Engine
from clipact.errors import FeatureFileError, UsageError


class FeatureLookup:
    """Find rows in a file of features of the same model and the same clips.

    A row is found by its path as its table has it, or as it lies on this disk, and by its part. Where the video is
    there and is another file than the one that was embedded, by its sha256, the row is not taken.

    Args:
        path: A file of `clipact embed`.
        model: Whose embeddings are wanted.
        encoder: Which clips of a video.
        keep_clips: Whether each clip's embedding is wanted, or their mean.

    Raises:
        FeatureFileError: It cannot be read, or its features are of other weights, frames, clips or precision.
        UsageError: It has the mean of several clips, and each of them is wanted.
    """

    def __init__(self, path: Path, model: Engine, encoder: ClipEncoder, *, keep_clips: bool = False) -> None:
        self.path, self.encoder = path, encoder
        self._file = FeatureFile(path)
        per_frame = self._file.metadata.per_frame
        try:
            self._file.metadata.check_same(features_metadata(model, encoder, per_frame=per_frame), name=str(path))
            if keep_clips and encoder.clips_a_video > 1 and not per_frame:
                raise UsageError(
                    f"{path} has the mean over the {encoder.clips_a_video} clips of each video, and their logits or "
                    "probabilities are to be averaged: leave out the file, or average embeddings"
                )
        except BaseException:
            self._file.close()
            raise
        self._lock = threading.Lock()
        self.found = self.asked = 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def find(self, row: ClipSource) -> VideoEmbedding | None:
        """Return what the file has of a row; None where the row must be decoded."""
        start, end = row.start_seconds, row.end_seconds
        names = [row.name, *([row.name.rpartition("@")[0]] if start is not None or end is not None else [])]
        if isinstance(row.source, str | Path):
            names.append(str(row.source))
        with self._lock:
            self.asked += 1
            kept = next((one for name in names if (one := self._file.find(name, start, end)) is not None), None)
        if kept is None or kept.embedding is None or not self._is_same(row, kept):
            return None
        found = self._embedding(row, kept)
        with self._lock:
            self.found += found is not None
        return found

    def check_found(self, *, asked: int) -> None:
        """Refuse a file in which not one row was found, when all of them, `asked`, were looked for.

        Raises:
            FeatureFileError: It says how the paths in it look.
        """
        if self.asked == asked and not self.found:
            first = next(iter(self._file), None)
            like = "it is empty" if first is None else f"its paths are such as {first.path}"
            raise FeatureFileError(
                f"not one of {self.asked:,} samples is in {self.path}: {like}. Embed the same table, or leave it out"
            )

    def _is_same(self, row: ClipSource, kept: FeatureRow) -> bool:
        digest = source_digest(row.source)
        return not digest or kept.sha256 in (None, digest)

    def _embedding(self, row: ClipSource, kept: FeatureRow) -> VideoEmbedding | None:
        assert kept.embedding is not None
        found = VideoEmbedding(
            name=row.name,
            digest=kept.sha256 or "",
            decoder=f"features of {self.path.name}",
            span=(row.start_seconds, row.end_seconds),
        )
        if not self._file.metadata.per_frame:
            return replace(found, embeddings=kept.embedding[None])
        frames = self.encoder.spec.frames
        if self.encoder.clips_a_video > 1 or len(kept.embedding) != frames:
            return None  # a frame that was repeated is there once: how often is not known
        assert kept.frames is not None
        assert kept.seconds is not None
        stamps = tuple(FrameStamp(*one) for one in zip(kept.frames.tolist(), kept.seconds.tolist(), strict=True))
        return replace(found, embeddings=self.encoder.head(kept.embedding[None]), stamps=(stamps,))
