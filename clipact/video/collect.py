"""Collect the frames of a source's clips as they are decoded: open, sample frame numbers, decode, fit to the spec.

Each distinct frame is decoded and fitted once, whatever number of clips it is in, and handed to a `FrameCollector`.
One decoded picture is held at a time: what is in memory depends neither on how many frames a clip has nor on how many
clips are asked for. `load` stacks what it collects into clips.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from clipact.clip_spec import ClipSpec, FrameStamp
from clipact.errors import UsageError, VideoError, choices
from clipact.video.augment import Augment
from clipact.video.clip import FramesDifferError, Timeline, Video
from clipact.video.decode_pyav import PyavVideo
from clipact.video.decode_sequential import SequentialVideo
from clipact.video.decode_torchcodec import TorchcodecVideo
from clipact.video.media import Media
from clipact.video.open_source import VideoSource, open_source, source_name
from clipact.video.sampling import sample
from clipact.video.transforms import fit_frame

DECODERS: dict[str, Callable[[Media], Video]] = {
    "pyav": PyavVideo,
    "torchcodec": TorchcodecVideo,
}


def check_decoder(name: str) -> None:
    """Nothing, or a UsageError when no decoder has this name."""
    if name not in DECODERS:
        raise UsageError(f"no decoder is called {name!r}; {choices(name, DECODERS)}")


Short = Literal["repeat", "error"]
Fit = Callable[[UInt8[np.ndarray, "h w c"]], UInt8[np.ndarray, "h2 w2 c"]]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked of a video; the fields are told where `load_clip` takes them."""

    spec: ClipSpec
    resized: bool = True
    clips: int = 1
    start_seconds: float | None = None
    end_seconds: float | None = None
    short: Short = "repeat"
    generator: np.random.Generator | None = None
    augment: Augment | None = None
    crops: int = 1
    decoder: str = "pyav"


class FrameCollector(ABC):
    """Take the frames of a source's clips as they are decoded."""

    @abstractmethod
    def begin(self, clips: Sequence[Sequence[int]], *, crops: int) -> None:
        """Prepare for these clips.

        Called again when another decoder starts over: what came before is void.

        Args:
            clips: The frame numbers of each clip, in the whole video; they repeat where a clip shows a frame twice.
            crops: How many pictures of each frame will come.
        """

    @abstractmethod
    def add(self, number: int, pictures: Sequence[UInt8[np.ndarray, "h w c"]]) -> None:
        """Take one distinct frame; each comes once, in any order.

        Args:
            number: Its number in the whole video.
            pictures: The frame fitted to the spec, one picture a crop (start, centre, end when there are three).
                They may be views of the source: copy what is kept.
        """

    @abstractmethod
    def finish(self) -> None:
        """Close the collection: all frames came."""


@dataclass(frozen=True, kw_only=True)
class ClipLedger:
    """Facts of one clip, without its frames; the fields are those of a `Clip`."""

    stamps: tuple[FrameStamp, ...]
    notes: tuple[str, ...]
    decoder: str
    duration_seconds: float | None
    source: str


def collect_frames(
    source: VideoSource, wanted: Wanted, collector: FrameCollector, *, time_limit_seconds: float | None = None
) -> tuple[ClipLedger, ...]:
    """Decode the frames that are wanted of a source into a collector.

    Without a time limit a frame is handed over as soon as it is decoded. With one, a process of its own decodes all
    of them first, and they are handed over afterwards: then all frames of the source are in memory at once.

    Args:
        source: As for `load_clip`.
        wanted: What to decode. It has no augment, whose pictures differ from clip to clip and from place to place.
        collector: Takes the frames. It has begun and not finished when an error is raised.
        time_limit_seconds: As for `load_clip`.

    Returns:
        The ledger of each view, in the order of `load_clips`; the crops of one clip share theirs.

    Raises:
        VideoError: The frames cannot be had.
    """
    assert wanted.augment is None, wanted.augment
    if time_limit_seconds is None:
        return decode_into(source, wanted, collector)
    from clipact.video.decode_subprocess import load_in_subprocess

    clips = load_in_subprocess(source, wanted, time_limit_seconds=time_limit_seconds)
    places: dict[int, tuple[int, int]] = {}  # of each distinct frame: a clip's first view that shows it, and where
    for view in range(0, len(clips), wanted.crops):
        for place, stamp in enumerate(clips[view].stamps):
            places.setdefault(stamp.index, (view, place))
    numbers = [[stamp.index for stamp in clip.stamps] for clip in clips[:: wanted.crops]]
    collector.begin(numbers, crops=wanted.crops)
    for number, (view, place) in places.items():
        collector.add(number, [clips[view + crop].frames[place] for crop in range(wanted.crops)])
    collector.finish()
    return tuple(
        ClipLedger(
            stamps=clip.stamps,
            notes=clip.notes,
            decoder=clip.decoder,
            duration_seconds=clip.duration_seconds,
            source=clip.source,
        )
        for clip in clips
    )


def decode_into(source: VideoSource, wanted: Wanted, collector: FrameCollector) -> tuple[ClipLedger, ...]:
    """Decode in this process, as `collect_frames` does; with an augment, frames are added as they were decoded."""
    check_decoder(wanted.decoder)
    try:
        with closing(open_source(source, end_seconds=wanted.end_seconds)) as opened:
            if isinstance(opened, Video):
                ledgers = _read(opened, wanted, collector)
            else:
                ledgers = _read_media(opened, wanted, collector)
    except MemoryError as error:
        raise VideoError(source_name(source), "it takes more memory than this process may have") from error
    collector.finish()
    return tuple(ledger for ledger in ledgers for _ in range(wanted.crops))


def _read_media(media: Media, wanted: Wanted, collector: FrameCollector) -> list[ClipLedger]:
    """Read by the decoder that was asked for, else by another, which is noted, else by counting frames."""
    generator = wanted.generator
    drawn = generator.bit_generator.state if generator else {}
    notes: tuple[str, ...] = ()
    for decoder in dict.fromkeys((wanted.decoder, "pyav")):
        try:
            ledgers = _read(DECODERS[decoder](media), wanted, collector)
        except FramesDifferError as difference:
            media.rewind()
            if generator:
                generator.bit_generator.state = drawn  # each way is asked for the same frames
            if decoder != "pyav":
                cause = str(difference) or "it does not give the frames that the packets announce"
                notes = (f"{decoder} was not used: {cause}",)
        else:
            return [replace(ledger, notes=ledger.notes + notes) for ledger in ledgers]
    ledgers = _read(SequentialVideo(media), wanted, collector)
    return [replace(ledger, notes=ledger.notes + notes) for ledger in ledgers]


def _read(video: Video, wanted: Wanted, collector: FrameCollector) -> list[ClipLedger]:
    timeline = video.timeline()
    allowed = timeline.within(wanted.start_seconds, wanted.end_seconds, name=video.name)
    chosen = _sampled(timeline, allowed, wanted)
    notes = [_repeats(numbers, len(allowed), wanted.short, name=video.name) for numbers in chosen]
    collector.begin(chosen, crops=wanted.crops)
    _decode(video, timeline, chosen, wanted=wanted, collector=collector)
    damaged = set(video.damaged())
    return [
        ClipLedger(
            stamps=timeline.stamps(numbers),
            notes=timeline.notes + _early_end(timeline, wanted.end_seconds) + repeats + _damage(numbers, damaged),
            decoder=video.decoder,
            duration_seconds=timeline.duration_seconds or None,
            source=video.name,
        )
        for numbers, repeats in zip(chosen, notes, strict=True)
    ]


def _decode(
    video: Video, timeline: Timeline, chosen: Sequence[Sequence[int]], *, wanted: Wanted, collector: FrameCollector
) -> None:
    """Hand over each distinct frame of the clips as soon as it is decoded and fitted."""
    fits = _fits(wanted)
    missing = {number for numbers in chosen for number in numbers}
    shape: tuple[int, ...] | None = None
    for number, picture in video.decode(timeline, sorted(missing)):
        shape = shape or picture.shape
        if not wanted.resized and wanted.augment is None and picture.shape != shape:
            raise VideoError(video.name, _size_change(shape, picture.shape))
        missing.discard(number)
        collector.add(number, [fit(picture) for fit in fits])
    if missing:
        raise FramesDifferError(f"it left out frame {min(missing)}")


def _fits(wanted: Wanted) -> list[Fit]:
    """What each frame goes through, once a crop."""
    if wanted.augment is not None or not wanted.resized:
        return [lambda frame: frame]
    if wanted.crops == 1:
        return [partial(fit_frame, spec=wanted.spec)]
    return [partial(fit_frame, spec=wanted.spec, keep=keep) for keep in ("start", "centre", "end")]


def _sampled(timeline: Timeline, allowed: range, wanted: Wanted) -> list[list[int]]:
    """The frame numbers of each clip, in the whole video."""
    seconds = timeline.seconds[allowed.start : allowed.stop]
    end = min(wanted.end_seconds or timeline.duration_seconds, timeline.duration_seconds)
    chosen = sample(
        wanted.spec,
        seconds,
        duration_seconds=max(end - float(seconds[0]), 0.0),
        clips=wanted.clips,
        generator=wanted.generator,
    )
    return [[allowed[i] for i in numbers] for numbers in chosen]


def _size_change(before: Sequence[int], after: Sequence[int]) -> str:
    return (
        f"its frames change size, from {before[1]} x {before[0]} to {after[1]} x {after[0]}; "
        "give a spec, so that all come out alike"
    )


def _early_end(timeline: Timeline, end_seconds: float | None) -> tuple[str, ...]:
    duration = timeline.duration_seconds
    if end_seconds is None or not duration or end_seconds <= duration + 0.05:  # who asks for 10 s of 9.98 means all
        return ()
    return (f"it ends at {duration:.3f} s, before the end asked for, {end_seconds:g} s",)


def _repeats(numbers: Sequence[int], available: int, short: Short, *, name: str) -> tuple[str, ...]:
    """A note, or a VideoError, when frames repeat: there are too few in the span, or the sampling passes some by."""
    distinct = len(set(numbers))
    if distinct == len(numbers):
        return ()
    said = f"{len(numbers)} frames asked for, {available} there"
    if available >= len(numbers):
        said = f"{len(numbers)} frames asked for, {distinct} different ones sampled of {available} there"
    if short == "error":
        raise VideoError(name, f"{said}; ask for fewer, or let them repeat")
    return (f"{said}: some repeat",)


def _damage(numbers: Sequence[int], damaged: set[int]) -> tuple[str, ...]:
    hurt = len(damaged.intersection(numbers))
    return (f"{hurt} of {len(set(numbers))} frames are damaged",) if hurt else ()
