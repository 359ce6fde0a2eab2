"""Frames out of a file with torchcodec, the same ones and the same pixels as with PyAV.

The timeline is read with PyAV. Of H.264 and HEVC torchcodec gets remuxed GOP spans, which saves half of the work; of
other files the timeline, so that it need not scan them. Its frames' own stamps are checked against what was planned.
torchcodec links the FFmpeg of the system, where PyAV carries its own.
"""

import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from clipact.errors import UsageError
from clipact.video.clip import FramesDifferError, KeyFrame, Timeline, Video, read_timeline
from clipact.video.container_index import read_index
from clipact.video.decode_pyav import (
    GopSpans,
    feed,
    group_by_key,
    leaves_out,
    names_old_encoder,
    without_lost_start,
)
from clipact.video.matroska_index import confirm
from clipact.video.media import Media
from clipact.video.picture_notes import note_header
from clipact.video.rgb import display_matrix
from clipact.video.slice_headers import nal_length_bytes, resets
from clipact.video.tone_mapping import HDR_TRANSFERS

# From frame to frame: longer than any header says that a frame lasts.
_STEP_SECONDS = 1000

# Compressed bytes in one remuxed file, after which the next GOP span begins another: about a minute of video.
_REMUX_BYTES = 8 << 20

# Compressed bytes in one GOP span at most: it is held three times while it is copied. A file with one key frame in ten
# minutes is better read from where it lies.
_SPAN_BYTES = 32 << 20

_REFUSED = (av.error.FFmpegError, ValueError)  # what PyAV raises when MP4 has no place for something


class CannotRemuxError(Exception):
    """These packets cannot be copied, or are too many: the file itself must be opened."""


@dataclass(frozen=True, kw_only=True)
class RemuxFrame:
    """A wanted frame: its number in the whole video, its number in the remuxed file, and when it is shown there."""

    index: int
    place: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Remux:
    """A file in memory, and which of its frames are wanted."""

    file: bytes
    frames: tuple[RemuxFrame, ...]


def can_remux(media: Media) -> bool:
    """Whether packets can be copied, and some left out: of H.264 and HEVC whose decoder's configuration is known."""
    return leaves_out(media) and bool(media.context.extradata)


def remux_spans(media: Media, timeline: Timeline, indices: Sequence[int]) -> Iterator[Remux]:
    """Files that together hold the frames `indices` and all that decoding them needs; mostly it is one.

    CannotRemuxError for packets that cannot be copied; FramesDifferError when a frame's packet does not come.
    """
    number = {int(timeline.ticks[index]): index for index in sorted(set(indices))}
    spans = GopSpans(media)
    codec, length_bytes = media.context.name, nal_length_bytes(media.context.name, media.context.extradata)
    writer: _Writer | None = None
    for key, wanted in group_by_key(list(number), timeline):
        packets = _collect(spans, key, wanted)
        anew = resets(packets[0], codec, length_bytes)
        if not anew and codec == "h264":  # FFmpeg begins at such a key frame, but holds some frames after it back
            raise CannotRemuxError
        # HEVC's decoder begins there, but does not go on over it: it takes its number for one that it has had.
        if writer and (writer.held_bytes > _REMUX_BYTES or not anew):
            yield writer.finish()
            writer = None
        writer = writer or _Writer(media)
        writer.add(packets, {tick: number[tick] for tick in wanted})
    if writer:
        yield writer.finish()


def _collect(spans: GopSpans, key: KeyFrame | None, wanted: Sequence[int]) -> list[Any]:
    """Return the packets of one GOP span."""
    packets, held_bytes = [], 0
    for packet, _ in spans.packets(key, wanted):
        packets.append(packet)
        held_bytes += packet.size
        # MP4 is not made to say that what decodes a packet changes.
        if held_bytes > _SPAN_BYTES or packet.pts is None or packet.has_sidedata("new_extradata"):
            raise CannotRemuxError
    if not {packet.pts for packet in packets if not packet.is_discard}.issuperset(wanted):
        raise FramesDifferError("its packets are others than at first: is it being written?")
    if not packets[0].is_keyframe:
        raise CannotRemuxError
    return packets


class _Writer:
    """A remuxed file that is being written."""

    def __init__(self, media: Media) -> None:
        self.held_bytes = 0
        self._buffer = io.BytesIO()
        options = {"video_track_timescale": "1", "use_editlist": "0"}
        try:
            self._container = av.open(self._buffer, "w", format="mp4", options=options)
            self._stream = self._container.add_stream_from_template(media.stream, opaque=True)
        except _REFUSED as error:
            raise CannotRemuxError from error
        self._frames: list[RemuxFrame] = []
        self._packets = 0
        self._steps = 0  # of time that are taken

    def add(self, packets: Sequence[Any], number: dict[int, int]) -> None:
        """Take in one GOP span; `number` has the wanted frames' numbers in the whole video, by their ticks."""
        # A packet is decoded at its place in the span, and shown at its rank, as much later as the last one needs.
        by_time = sorted(range(len(packets)), key=lambda at: packets[at].pts)
        rank = {at: shown for shown, at in enumerate(by_time)}
        delay = max(at - shown for at, shown in rank.items())
        for at, packet in enumerate(packets):
            shown = (self._steps + delay + rank[at]) * _STEP_SECONDS
            if packet.pts in number and not packet.is_discard:
                self._frames.append(
                    RemuxFrame(index=number[packet.pts], place=self._packets + rank[at], seconds=float(shown))
                )
            copy = av.Packet(bytes(packet))  # a new one, because no packet forgets that an edit list hides its frame
            copy.stream, copy.time_base, copy.is_keyframe = self._stream, Fraction(1), packet.is_keyframe
            copy.pts, copy.dts, copy.duration = shown, (self._steps + at) * _STEP_SECONDS, _STEP_SECONDS
            try:
                self._container.mux(copy)
            except _REFUSED as error:
                raise CannotRemuxError from error
            self.held_bytes += packet.size
        self._packets += len(packets)
        self._steps += len(packets) + delay

    def finish(self) -> Remux:
        """Return the remuxed file; nothing can be added any more."""
        try:
            self._container.close()
        except _REFUSED as error:
            raise CannotRemuxError from error
        frames = tuple(sorted(self._frames, key=lambda frame: frame.place))
        return Remux(file=self._buffer.getvalue(), frames=frames)


# Frames that are decoded at once: a call costs 0.2 ms, but fresh memory, which large batches are, costs more.
_BATCH_BYTES = 8 << 20

# The first packet of H.264 and HEVC holds a frame; of a file that begins with something else, a later one.
_LATEST_FIRST_FRAME = 16  # packets

# The first version that turns frames as their file says (torchcodec's pull request 1173).
_OLDEST = (0, 11)


class TorchcodecVideo(Video):
    """A file whose packets carry true time stamps.

    It does not say which frames came out of damaged packets, and has no bound for frames that grow half way through a
    file: where files are not trusted, decode with PyAV or under a time limit, whose process has a bound of memory.
    """

    decoder = "torchcodec"

    def __init__(self, media: Media) -> None:
        self._decoder_class = import_torchcodec()
        self.name = media.name
        self._media = media
        self._is_turned = False

    def close(self) -> None:
        """Give the file back."""
        self._media.close()

    def picture_notes(self) -> tuple[str, ...]:
        """What is unusual about its pictures, as the header says."""
        return note_header(self._media)

    def timeline(self) -> Timeline:
        """When each frame is shown, from the packets alone; of the first of them a frame is made besides."""
        return self._checked(read_timeline(self._media, self._not_mirrored(self._media.packets_from_start())))

    def indexed_timeline(self) -> Timeline | None:
        """The timeline from the container's index, where it can be trusted; the first frame is made besides."""
        timeline = read_index(self._media)
        if timeline is None:
            return None
        for _ in islice(self._not_mirrored(self._media.packets_from_start()), _LATEST_FIRST_FRAME):
            pass
        return self._checked(timeline)

    def _checked(self, timeline: Timeline) -> Timeline:
        """The timeline of what can be decoded; FramesDifferError for frames that torchcodec does not turn."""
        if self._is_turned and not self._container_turns():
            raise FramesDifferError("its frames say themselves how they are turned, which torchcodec overlooks")
        return without_lost_start(self._media, timeline)

    def confirm(self, timeline: Timeline, indices: Sequence[int]) -> Timeline:
        """The timeline with the stretches of these frames as their packets say."""
        return confirm(self._media, timeline, indices)

    def decode(self, timeline: Timeline, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """Each wanted frame, a few at a time."""
        if self._media.context.color_trc in HDR_TRANSFERS:
            raise FramesDifferError("it does not map the tones of high dynamic range")
        missing = set(indices)
        try:
            for remuxed in remux_spans(self._media, timeline, indices) if can_remux(self._media) else ():
                numbers, places, seconds = zip(*((f.index, f.place, f.seconds) for f in remuxed.frames), strict=True)
                missing.difference_update(numbers)
                decoder = self._decoder(remuxed.file, 0)
                yield from self._frames(decoder, numbers, places, np.array(seconds), tolerance=0.5)
        except CannotRemuxError:
            pass  # what is missing is read from the file itself
        if missing:
            wanted = sorted(missing)
            seconds_there = timeline.ticks[wanted] * float(timeline.time_base)
            decoder = self._open_whole(timeline)
            yield from self._frames(decoder, wanted, wanted, seconds_there, tolerance=float(timeline.time_base) / 2)

    def _frames(
        self, decoder: Any, numbers: Sequence[int], places: Sequence[int], seconds: np.ndarray, *, tolerance: float
    ) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """The frames at these places, under these numbers; FramesDifferError when one is shown at another time."""
        size = max(1, _BATCH_BYTES // max(1, 3 * self._media.context.width * self._media.context.height))
        for start in range(0, len(places), size):
            batch = slice(start, start + size)
            try:
                frames = decoder.get_frames_at(list(places[batch]))
            except (RuntimeError, IndexError) as error:
                raise FramesDifferError from error
            if not np.allclose(frames.pts_seconds.numpy(), seconds[batch], rtol=0, atol=tolerance):
                raise FramesDifferError
            yield from zip(numbers[batch], frames.data.numpy(), strict=True)

    def _open_whole(self, timeline: Timeline) -> Any:
        place, stream_index = self._place(), self._media.stream.index
        keys = {key.tick for key in timeline.keys}
        ticks = [*timeline.ticks.tolist(), int(timeline.ticks[-1]) + max(1, timeline.last_ticks)]
        frames = [{"pts": a, "duration": b - a, "key_frame": int(a in keys)} for a, b in pairwise(ticks)]
        try:
            return self._decoder(place, stream_index, custom_frame_mappings=json.dumps({"frames": frames}))
        except ValueError:
            # Of a file without a duration in its header it wants to find the frames itself.
            return self._decoder(place, stream_index, seek_mode="exact")

    def _place(self) -> Any:
        if self._media.timeout is not None:
            raise FramesDifferError("it would wait for an address without end")
        place = self._media.place
        return place.removeprefix("file:") if isinstance(place, str) else place

    def _decoder(self, source: Any, stream_index: int, **options: Any) -> Any:
        if not isinstance(source, str | bytes):
            source.seek(0)
        try:
            return self._decoder_class(
                source,
                stream_index=stream_index,
                dimension_order="NHWC",
                num_ffmpeg_threads=self._media.threads
                or os.cpu_count()
                or 1,  # left to itself FFmpeg takes one more, which is 5 % slower
                **options,
            )
        except RuntimeError as error:
            raise FramesDifferError(f"it cannot open the file: {str(error).splitlines()[0]}") from error

    def _not_mirrored(self, packets: Iterator[Any]) -> Iterator[Any]:
        """The packets; FramesDifferError when the first frame is shown mirrored, which torchcodec overlooks."""
        context, checked = self._media.context, False
        for packet in packets:
            if not checked:
                if names_old_encoder(self._media, packet):
                    raise FramesDifferError(
                        "how its 4:4:4 is decoded is told by its first packet, which torchcodec skips"
                    )
                for frame in [*feed(context, packet), *feed(context, None)][:1]:
                    checked = True
                    a, b, c, d = display_matrix(frame)
                    if a * d - b * c < 0:
                        raise FramesDifferError("its frames are shown mirrored, which torchcodec overlooks")
                    self._is_turned = a < 0 or b != 0
                context.flush_buffers()
            yield packet

    def _container_turns(self) -> bool:
        """Whether the container says how frames are turned, and not they themselves (EXIF, an SEI message)."""
        decoder = self._decoder(self._place(), self._media.stream.index, seek_mode="approximate")
        self._media.rewind()  # a file object stands elsewhere now
        return bool(decoder.metadata.rotation)


def import_torchcodec() -> Any:
    """torchcodec's VideoDecoder; UsageError, with what is missing, when it cannot be had."""
    try:
        import torchcodec
        from torchcodec.decoders import VideoDecoder
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the decoder torchcodec needs {error.name}; run `pip install torchcodec`, or use --decoder pyav"
        ) from error
    except (RuntimeError, OSError, ImportError) as error:
        raise UsageError(
            "torchcodec is installed but cannot load FFmpeg's shared libraries; install FFmpeg with the system's "
            "package manager (Debian: apt install ffmpeg), or use --decoder pyav, which carries its own"
        ) from error
    found = str(getattr(torchcodec, "__version__", "of unknown version"))
    if tuple(int(number) for number in re.findall(r"\d+", found)[:2]) < _OLDEST:
        raise UsageError(
            f"torchcodec {found} shows turned video lying on its side; run `pip install -U 'torchcodec>=0.11'`, "
            "or use --decoder pyav"
        )
    return VideoDecoder
