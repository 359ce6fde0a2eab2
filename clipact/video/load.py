"""Load clips from a video source: open it, sample frame numbers, decode, transform; of many sources, ahead in threads.

Decoders release the interpreter's lock. `decode_ahead` begins to decode when it is called, not when its result is first
asked for: the command line calls it before it imports torch, and finds the first video decoded when the model is ready.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from clipact.clip_spec import ClipSpec
from clipact.errors import UsageError, VideoError, choices
from clipact.video.augment import Augment, DrawnAugment
from clipact.video.clip import Clip, FramesDifferError, Timeline, Video
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
Fit = Callable[[np.ndarray, Sequence[float]], np.ndarray]
"""What becomes of a frame at each of its moments in a clip, from 0 to 1: a row a moment, or one for all of them."""


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


def load_clip(
    source: VideoSource,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    *,
    spec: ClipSpec | None = None,
    frames: int | None = None,
    short: Short = "repeat",
    generator: np.random.Generator | None = None,
    augment: Augment | None = None,
    decoder: str = "pyav",
    time_limit_seconds: float | None = None,
) -> Clip:
    """One clip: the frames that `spec` samples between two times, at its size.

    source              a file, a folder of numbered pictures, an address, "-", bytes, a file object or an array
    start, end          seconds, counted from the first frame
    spec                None: 8 frames from the middles of equal segments, at their own size
    frames              overrules the number in the spec
    short               fewer frames than wanted repeat and are noted, or ("error") are a VideoError
    generator           takes a random frame of each segment; an `augment`, which may give another size, draws from it
    time_limit_seconds  decodes in a process of its own, which is ended when the time is up

    VideoError, with path and cause, when the frames cannot be had.
    """
    wanted = Wanted(
        spec=(spec or ClipSpec()).with_frames(frames),
        resized=spec is not None,
        start_seconds=start_seconds,
        end_seconds=end_seconds,
        short=short,
        generator=generator,
        augment=augment,
        decoder=decoder,
    )
    return load_wanted(source, wanted, time_limit_seconds=time_limit_seconds)[0]


def load_clips(
    source: VideoSource,
    spec: ClipSpec,
    *,
    clips: int = 1,
    crops: int = 1,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    short: Short = "repeat",
    generator: np.random.Generator | None = None,
    augment: Augment | None = None,
    decoder: str = "pyav",
    time_limit_seconds: float | None = None,
) -> tuple[Clip, ...]:
    """`clips` clips of one video, sampled between two times as `clipact.video.sampling.sample` says.

    With crops=3 each is there three times: the left or top, the centre and the right or bottom of its frames. All
    of them are decoded in one pass. The rest as for `load_clip`.
    """
    if clips < 1:
        raise UsageError(f"clips is {clips}; a video gives at least 1")
    if crops not in (1, 3):
        raise UsageError(f"crops is {crops}; 1 (the centre) or 3 (start, centre and end of the longer side)")
    if crops == 3 and spec.resize != "shortest":
        raise UsageError(f"crops is 3, but nothing is cropped when resize is {spec.resize!r}; take crops 1")
    wanted = Wanted(
        spec=spec,
        clips=clips,
        crops=crops,
        start_seconds=start_seconds,
        end_seconds=end_seconds,
        short=short,
        generator=generator,
        augment=augment,
        decoder=decoder,
    )
    return load_wanted(source, wanted, time_limit_seconds=time_limit_seconds)


def load_wanted(source: VideoSource, wanted: Wanted, *, time_limit_seconds: float | None = None) -> tuple[Clip, ...]:
    """The clips that are wanted of the source; as `load_clip` says."""
    check_decoder(wanted.decoder)
    if time_limit_seconds is not None:
        from clipact.video.decode_subprocess import load_in_subprocess

        return load_in_subprocess(source, wanted, time_limit_seconds=time_limit_seconds)
    try:
        with closing(open_source(source, end_seconds=wanted.end_seconds)) as opened:
            return _read(opened, wanted) if isinstance(opened, Video) else _read_media(opened, wanted)
    except MemoryError as error:
        raise VideoError(source_name(source), "it takes more memory than this process may have") from error


def _read_media(media: Media, wanted: Wanted) -> tuple[Clip, ...]:
    """The clips by the decoder that was asked for, else by another, which is noted, else by counting frames."""
    generator = wanted.generator
    drawn = generator.bit_generator.state if generator else {}
    notes: tuple[str, ...] = ()
    for decoder in dict.fromkeys((wanted.decoder, "pyav")):
        try:
            clips = _read(DECODERS[decoder](media), wanted)
        except FramesDifferError as difference:
            media.rewind()
            if generator:
                generator.bit_generator.state = drawn  # each way is asked for the same frames
            if decoder != "pyav":
                cause = str(difference) or "it does not give the frames that the packets announce"
                notes = (f"{decoder} was not used: {cause}",)
        else:
            return tuple(replace(clip, notes=clip.notes + notes) for clip in clips)
    clips = _read(SequentialVideo(media), wanted)
    return tuple(replace(clip, notes=clip.notes + notes) for clip in clips)


def _read(video: Video, wanted: Wanted) -> tuple[Clip, ...]:
    timeline = video.timeline()
    allowed = timeline.within(wanted.start_seconds, wanted.end_seconds, name=video.name)
    chosen = _sampled(timeline, allowed, wanted)
    notes = [_repeats(numbers, len(allowed), wanted.short, name=video.name) for numbers in chosen]
    views = [(numbers, fit) for numbers in chosen for fit in _fits(wanted)]
    frames = _decoded(video, timeline, views)
    damaged = set(video.damaged())
    return tuple(
        Clip(
            frames=array,
            stamps=timeline.stamps(numbers),
            source=video.name,
            decoder=video.decoder,
            duration_seconds=timeline.duration_seconds or None,
            notes=timeline.notes
            + _early_end(timeline, wanted.end_seconds)
            + notes[i // wanted.crops]
            + _damage(numbers, damaged),
        )
        for i, (array, (numbers, _)) in enumerate(zip(frames, views, strict=True))
    )


def _fits(wanted: Wanted) -> list[Fit]:
    """What each frame of a clip goes through: one for each crop, drawn anew for each clip when it is random."""
    if wanted.augment is not None:
        if wanted.generator is None:
            raise UsageError("an augment is random; give the generator that it draws from")
        fitted = _drifting if wanted.augment.drift else _still
        return [
            fitted(DrawnAugment(wanted.augment, wanted.spec, generator=wanted.generator)) for _ in range(wanted.crops)
        ]
    if not wanted.resized:
        return [_still(lambda frame: frame)]
    if wanted.crops == 1:
        return [_still(partial(fit_frame, spec=wanted.spec))]
    return [_still(partial(fit_frame, spec=wanted.spec, keep=keep)) for keep in ("start", "centre", "end")]


def _still(fit: Callable[[np.ndarray], np.ndarray]) -> Fit:
    return lambda frame, moments: fit(frame)[None]


def _drifting(drawn: DrawnAugment) -> Fit:
    return lambda frame, moments: np.stack([drawn(frame, moment=moment) for moment in moments])


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


def _decoded(video: Video, timeline: Timeline, views: Sequence[tuple[list[int], Fit]]) -> list[np.ndarray]:
    """The frames of each view, every one put in its places as soon as it is decoded and resized."""
    arrays: list[np.ndarray | None] = [None] * len(views)
    missing = {i for numbers, _ in views for i in numbers}
    for index, picture in video.decode(timeline, sorted(missing)):
        missing.discard(index)
        for at, (numbers, fit) in enumerate(views):
            places = [place for place, number in enumerate(numbers) if number == index]
            if not places:
                continue
            fitted = fit(picture, [place / max(len(numbers) - 1, 1) for place in places])
            array = arrays[at]
            if array is None:
                array = arrays[at] = np.empty((len(numbers), *fitted.shape[1:]), np.uint8)
            if fitted.shape[1:] != array.shape[1:]:
                raise VideoError(video.name, _size_change(array.shape[1:], fitted.shape[1:]))
            array[places] = fitted
    if missing:
        raise FramesDifferError(f"it left out frame {min(missing)}")
    return [array for array in arrays if array is not None]


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


T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Decoded:
    """A source and its clips, or the reason why it has none."""

    source: str
    clips: tuple[Clip, ...]
    error: VideoError | None = None


def decode_ahead(sources: Iterable[str | Path], spec: ClipSpec, *, depth: int = 2, **options: Any) -> Iterator[Decoded]:
    """What each source decodes to, in order, with up to `depth` videos decoded before they are asked for.

    `options` go to `load_clips`. An unreadable source yields its VideoError; it is never left out.
    """
    return work_ahead(lambda source: decode_one(source, spec, **options), sources, depth=depth)


def decode_one(source: str | Path, spec: ClipSpec, **options: Any) -> Decoded:
    """What a source decodes to, or its VideoError; `options` go to `load_clips`."""
    try:
        return Decoded(str(source), load_clips(source, spec, **options))
    except VideoError as error:
        return Decoded(str(source), (), error)


def work_ahead(work: Callable[[T], R], items: Iterable[T], *, depth: int = 2, workers: int = 1) -> Iterator[R]:
    """What `work` makes of each item, in order, made in `workers` threads, up to `depth` of them ahead.

    At most `depth` results are held, however slow the consumer is. What `work` raises is raised in its item's place.
    """
    waiting = iter(items)
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="decode")
    ahead: deque[Future[R]] = deque(pool.submit(work, item) for item in islice(waiting, depth))

    def drain() -> Iterator[R]:
        try:
            while ahead:
                ready = ahead.popleft().result()
                ahead.extend(pool.submit(work, item) for item in islice(waiting, 1))
                yield ready
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    return drain()
