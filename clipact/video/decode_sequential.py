"""Frames of files whose time stamps lie: decoded from the first on, and counted.

All of HMDB51 is such (AVI with packed B-frames), and so are recordings whose clock was set back. Every frame is decoded
twice, once to count and once to fetch; that is the price of a number that can be relied on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import UInt8

from clipact.video.clip import Timeline, Video, damage, shortfall
from clipact.video.decode_pyav import feed
from clipact.video.media import Media
from clipact.video.picture_notes import note_pixel_shape
from clipact.video.rgb import RgbConverter

_RATE_WHEN_UNKNOWN = 25


class SequentialVideo(Video):
    """A file of which only the order of its frames is certain."""

    decoder = "pyav"

    def __init__(self, media: Media) -> None:
        self.name = media.name
        self._media = media
        self._damaged: list[int] = []
        self._spoilt = 0  # packets
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
        media = self._media
        counted = media.progress(self._all_frames(), media.stream.frames or None, f"counting frames of {media.name}")
        stamps = [(frame.pts, frame.dts) for frame in counted]
        if not stamps:
            raise media.error("not one frame can be decoded")
        rate = media.stream.average_rate or media.stream.guessed_rate or _RATE_WHEN_UNKNOWN
        step = max(1, round(1 / (rate * media.time_base)))
        ticks = _rising(stamps, step)
        notes: tuple[str, ...] = () if ticks is not None else ("its clock runs back: frames are timed by its rate",)
        if ticks is None:
            ticks = np.arange(len(stamps)) * step
        timeline = Timeline(ticks=ticks, time_base=media.time_base, last_ticks=step, notes=notes)
        notes = media.notes + notes + damage(self._spoilt) + shortfall(media, timeline, found=len(stamps))
        return replace(timeline, notes=notes)

    def decode(self, timeline: Timeline, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w c"]]]:
        """Each wanted frame, found by counting from the first."""
        missing = set(indices)
        for number, frame in enumerate(self._all_frames()):
            if number in missing:
                missing.remove(number)
                if frame.is_corrupt:
                    self._damaged.append(number)
                yield number, self._rgb.convert(frame)
            if not missing:
                return
        raise self._media.error(f"frame {min(missing)} was there at first and then was not: is it being written?")

    def _all_frames(self) -> Iterator[Any]:
        self._media.rewind()
        self._spoilt = 0
        context = self._media.context
        for packet in self._media.packets():
            self._spoilt += packet.is_corrupt
            yield from feed(context, packet)
        yield from feed(context, None)


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
