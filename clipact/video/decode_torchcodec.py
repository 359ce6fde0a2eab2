"""Frames out of a file with torchcodec, the same ones and the same pixels as with PyAV.

The timeline is read with PyAV and handed to torchcodec, which then need not scan the file; its frames' own stamps
are checked against it. torchcodec links the FFmpeg of the system, where PyAV carries its own.
"""

import json
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import UInt8

from clipact.errors import UsageError
from clipact.video.decode_pyav import feed
from clipact.video.media import Media
from clipact.video.packets import FramesDifferError, read_timeline
from clipact.video.rgb import display_matrix
from clipact.video.timeline import Timeline
from clipact.video.video import Video

# Frames that are decoded at once: a call costs 0.2 ms, but fresh memory, which large batches are, costs more.
_BATCH_BYTES = 8 << 20


class TorchcodecVideo(Video):
    """A file whose packets carry true time stamps."""

    decoder = "torchcodec"

    def __init__(self, media: Media) -> None:
        self._decoder_class = import_torchcodec()
        self.name = media.name
        self._media = media

    def close(self) -> None:
        """Give the file back."""
        self._media.close()

    def timeline(self) -> Timeline:
        """When each frame is shown, from the packets alone; of the first of them a frame is made besides."""
        return read_timeline(self._media, self._not_mirrored(self._media.packets()))

    def decode(self, timeline: Timeline, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """Each wanted frame, a few at a time."""
        decoder = self._open(timeline)
        wanted = sorted(set(indices))
        size = max(1, _BATCH_BYTES // max(1, 3 * self._media.context.width * self._media.context.height))
        for start in range(0, len(wanted), size):
            batch = wanted[start : start + size]
            try:
                frames = decoder.get_frames_at(batch)
            except RuntimeError as error:
                raise FramesDifferError from error
            expected = timeline.ticks[batch] * float(timeline.time_base)
            if not np.allclose(frames.pts_seconds.numpy(), expected, rtol=0, atol=float(timeline.time_base) / 2):
                raise FramesDifferError
            yield from zip(batch, frames.data.numpy(), strict=True)

    def _open(self, timeline: Timeline) -> Any:
        keys = {key.tick for key in timeline.keys}
        ticks = [*timeline.ticks.tolist(), int(timeline.ticks[-1]) + max(1, timeline.last_ticks)]
        frames = [{"pts": a, "duration": b - a, "key_frame": int(a in keys)} for a, b in pairwise(ticks)]
        try:
            return self._decoder(custom_frame_mappings=json.dumps({"frames": frames}))
        except ValueError:
            # Of a file without a duration in its header it wants to find the frames itself.
            return self._decoder(seek_mode="exact")

    def _decoder(self, **options: Any) -> Any:
        place = self._media.place
        if not isinstance(place, str):
            place.seek(0)
        try:
            return self._decoder_class(
                place.removeprefix("file:") if isinstance(place, str) else place,
                stream_index=self._media.stream.index,
                dimension_order="NHWC",
                num_ffmpeg_threads=os.cpu_count() or 1,  # left to itself FFmpeg takes one more, which is 5 % slower
                **options,
            )
        except RuntimeError as error:
            raise self._media.error(f"torchcodec cannot open it: {str(error).splitlines()[0]}") from error

    def _not_mirrored(self, packets: Iterator[Any]) -> Iterator[Any]:
        """The packets; FramesDifferError when the first frame is shown mirrored, which torchcodec overlooks."""
        context, checked = self._media.context, False
        for packet in packets:
            if not checked:
                for frame in [*feed(context, packet), *feed(context, None)][:1]:
                    checked = True
                    a, b, c, d = display_matrix(frame)
                    if a * d - b * c < 0:
                        raise FramesDifferError
                context.flush_buffers()
            yield packet


def import_torchcodec() -> Any:
    """torchcodec's VideoDecoder; UsageError, with what is missing, when it cannot be had."""
    try:
        from torchcodec.decoders import VideoDecoder
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the decoder torchcodec needs {error.name}; run `pip install torchcodec`, or use --decoder pyav"
        ) from error
    except (RuntimeError, OSError, ImportError) as error:
        raise UsageError(
            "torchcodec is installed but cannot load FFmpeg's shared libraries, version 4 to 8; install FFmpeg with "
            "the system's package manager (Debian: apt install ffmpeg), or use --decoder pyav, which carries its own"
        ) from error
    return VideoDecoder
