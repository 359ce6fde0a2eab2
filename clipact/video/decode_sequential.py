"""Frames of files whose time stamps lie: decoded from the first on, and counted.

All of HMDB51 is such (AVI with packed B-frames), and so are recordings whose clock was set back. Every frame is decoded
twice, once to count and once to fetch; that is the price of a number that can be relied on. Of a raw stream the packets
are counted instead, which a parser makes of one frame each, and decoding checks the number: each is decoded once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import UInt8

from clipact.video.clip import FramesDifferError, Timeline, Video, shortfall
from clipact.video.damage import DamageTracker, damage_notes
from clipact.video.decode_pyav import feed, find_old_encoder, has_own_orientation
from clipact.video.media import Media
from clipact.video.picture_notes import note_pixel_shape
from clipact.video.rgb import UPRIGHT, RgbConverter, display_matrix
from clipact.video.slice_headers import SAYS_ORIENTATION

_RATE_WHEN_UNKNOWN = 25


_RAW_FORMATS = {"h264", "hevc"}


class SequentialVideo(Video):
    """A file of which only the order of its frames is certain.

    With `by_packets` the frames are counted by the packets of a raw stream, and FramesDifferError says that they must
    be decoded to be counted.
    """

    decoder = "pyav"

    def __init__(self, media: Media, *, by_packets: bool = False) -> None:
        self.name = media.name
        self._media = media
        self._by_packets = by_packets
        self._damaged: list[int] = []
        self._spoilt = 0  # packets
        self._damage = DamageTracker()
        self._ignores_matrix = False
        find_old_encoder(media)
        self._rgb = RgbConverter(media.name)

    def close(self) -> None:
        """Give the file back."""
        self._media.close()

    def damaged(self) -> Sequence[int]:
        """The frames handed out so far that came out of damaged packets."""
        return self._damaged

    def picture_notes(self) -> tuple[str, ...]:
        """What is unusual about the shape of its pixels, and the frames handed out so far."""
        return note_pixel_shape(self._media) + self._rgb.notes

    def timeline(self) -> Timeline:
        """Every frame that decodes, at its stamp where stamps rise, else at its number times the frame rate."""
        return self._timeline(self._all_frames())

    def indexed_timeline(self) -> Timeline | None:
        """A frame a packet, as `timeline` would time them; None of files whose packets are not counted."""
        counts = self._by_packets and self._media.format in _RAW_FORMATS and self._media.context.field_order in (0, 1)
        return self._timeline(self._all_packets()) if counts else None

    def _timeline(self, counted: Iterator[Any]) -> Timeline:
        media = self._media
        shown = media.progress(counted, media.stream.frames or None, f"counting frames of {media.name}")
        stamps = [(one.pts, one.dts) for one in shown]
        if not stamps:
            raise media.error("not one frame can be decoded")
        rate = media.rate_fps or _RATE_WHEN_UNKNOWN
        step = max(1, round(1 / (rate * media.time_base)))
        ticks = None if media.is_raw else _rising(stamps, step)
        notes: tuple[str, ...] = ()
        if ticks is None:
            ticks = np.arange(len(stamps)) * step
            has_clock = not media.is_raw and any(tick is not None for column in stamps for tick in column)
            why = "its clock runs back" if has_clock else "it has no clock of its own"
            notes = (f"{why}: frames are timed by its rate, {float(rate):.5g} frames a second",)
        timeline = Timeline(ticks=ticks, time_base=media.time_base, last_ticks=step, notes=notes)
        notes = (
            media.notes
            + notes
            + damage_notes(self._spoilt, rejected=self._damage.rejected)
            + shortfall(media, timeline, found=len(stamps))
        )
        return replace(timeline, notes=notes)

    def decode(self, timeline: Timeline, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """Each wanted frame, found by counting from the first; by packets, the last frame is waited for."""
        missing = set(indices)
        number = -1
        matrix = None  # of all frames, or each has its own: JPEGs
        for number, frame in enumerate(self._all_frames()):
            if matrix is None or self._media.context.name not in SAYS_ORIENTATION:
                matrix = UPRIGHT if self._ignores_matrix else display_matrix(frame)
            damaged = self._damage.follow(frame)
            if number in missing:
                missing.remove(number)
                if damaged:
                    self._damaged.append(number)
                yield number, self._rgb.convert(frame, matrix=matrix)
            if not missing and not self._by_packets:
                return
        if self._by_packets:
            if number + 1 != len(timeline):
                raise FramesDifferError
            return
        raise self._media.error(f"frame {min(missing)} was there at first and then was not: is it being written?")

    def _all_packets(self) -> Iterator[Any]:
        self._media.rewind()
        self._spoilt = 0
        self._damage = DamageTracker()
        for number, packet in enumerate(self._media.packets()):
            if not number:
                self._ignores_matrix = has_own_orientation(self._media, packet)
            self._spoilt += packet.is_corrupt
            yield packet

    def _all_frames(self) -> Iterator[Any]:
        for packet in self._all_packets():
            yield from feed(self._media.context, packet, rejected=self._damage.reject)
        yield from feed(self._media.context, None)


def _rising(stamps: Sequence[tuple[int | None, int | None]], step: int) -> np.ndarray | None:
    """The presentation stamps where they rise from frame to frame, else the decoding stamps, else None.

    The last frames of an AVI come out without a stamp: they follow at the frame rate.
    """
    for column in zip(*stamps, strict=True):
        known = [tick for tick in column if tick is not None]
        missing = len(stamps) - len(known)
        if known and None not in column[: len(known)] and all(early < late for early, late in pairwise(known)):
            return np.array(known + [known[-1] + step * (i + 1) for i in range(missing)], dtype=np.int64)
    return None
