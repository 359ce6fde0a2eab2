"""Collect the frames of a source's clips as they are decoded: open, sample frame numbers, decode, fit to the spec.

Each distinct frame is decoded and fitted once, whatever number of clips it is in, and handed to a `FrameCollector`.
One decoded picture is held at a time: what is in memory depends neither on how many frames a clip has nor on how many
clips are asked for. `load` stacks what it collects into clips.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from clipact.clip_spec import ClipSpec, FrameStamp
from clipact.errors import UsageError, VideoError
from clipact.file_memo import FileIdentity, identify_file
from clipact.progress import ProgressBar, no_progress
from clipact.video.augment import Augment
from clipact.video.clip import FramesDifferError, Timeline, Video
from clipact.video.decode_sequential import SequentialVideo
from clipact.video.guard import decoder_errors, guarded
from clipact.video.idle_media import IdleMedia
from clipact.video.kept_timelines import recall_timeline
from clipact.video.ledger_notes import Short, note_damage, note_early_end, note_repeats, note_uneven, tell_size_change
from clipact.video.media import Media
from clipact.video.open_source import FILE, VideoSource, open_source, read_head, source_kind, source_name
from clipact.video.sampling import sample
from clipact.video.transforms import Kept, fit_crops
from clipact.video.ways import check_decoder, list_ways


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
    decoder_threads: int | None = None


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
    source: VideoSource,
    wanted: Wanted,
    collector: FrameCollector,
    *,
    time_limit_seconds: float | None = None,
    progress: ProgressBar = no_progress,
) -> tuple[ClipLedger, ...]:
    """Decode the frames that are wanted of a source into a collector.

    Without a time limit a frame is handed over as soon as it is decoded. With one, a process of its own decodes all
    of them first, and they are handed over afterwards: then all frames of the source are in memory at once.

    Args:
        source: As for `load_clip`.
        wanted: What to decode. It has no augment, whose pictures differ from clip to clip and from place to place.
        collector: Takes the frames. It has begun and not finished when an error is raised.
        time_limit_seconds: As for `load_clip`.
        progress: As for `load_clip`.

    Returns:
        The ledger of each view, in the order of `load_clips`; the crops of one clip share theirs.

    Raises:
        VideoError: The frames cannot be had.
    """
    assert wanted.augment is None, wanted.augment
    if time_limit_seconds is None:
        return decode_into(source, wanted, collector, progress=progress)
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


def decode_into(
    source: VideoSource, wanted: Wanted, collector: FrameCollector, *, progress: ProgressBar = no_progress
) -> tuple[ClipLedger, ...]:
    """Decode in this process, as `collect_frames` does; with an augment, frames are added as they were decoded."""
    check_decoder(wanted.decoder)
    if wanted.decoder_threads is not None and wanted.decoder_threads < 1:
        raise UsageError(f"decoder_threads is {wanted.decoder_threads}; at least 1, or None: as many as FFmpeg takes")
    try:
        ledgers = _read_source(source, wanted, collector, progress)
    except MemoryError as error:
        raise VideoError(source_name(source), "it takes more memory than this process may have") from error
    collector.finish()
    return tuple(ledger for ledger in ledgers for _ in range(wanted.crops))


_IDLE = IdleMedia()


def _read_source(
    source: VideoSource, wanted: Wanted, collector: FrameCollector, progress: ProgressBar
) -> list[ClipLedger]:
    # Before it is opened: what was read of a file that is replaced meanwhile must not pass for the new one's.
    identity = _identify(source)
    threads = wanted.decoder_threads
    idle = None if identity is None else _IDLE.take(identity, threads=threads)
    with decoder_errors(source_name(source)):
        opened = idle or open_source(source, end_seconds=wanted.end_seconds)
    with ExitStack() as closing:
        closing.callback(opened.close)
        if isinstance(opened, Video):
            with decoder_errors(opened.name):
                timeline = opened.timeline()
            return _read(opened, timeline, wanted, collector, progress)
        opened.progress = progress
        if idle is None:
            opened.use_threads(threads)
        elif isinstance(source, str | Path):
            opened.name = str(Path(source))
        ledgers, is_reusable = _read_media(opened, identity, wanted, collector)
        if identity and is_reusable:
            closing.pop_all()
            _IDLE.give(identity, opened)
        return ledgers


def _identify(source: VideoSource) -> FileIdentity | None:
    """The identity of a file that can be read, before it is opened; None of other sources."""
    if not isinstance(source, str | Path) or source_kind(source) != FILE:
        return None
    read_head(Path(source))
    try:
        return identify_file(source)
    except OSError:
        return None  # opening will say what is wrong


def _read_media(
    media: Media, identity: FileIdentity | None, wanted: Wanted, collector: FrameCollector
) -> tuple[list[ClipLedger], bool]:
    """Read by the first way that holds; that the decoder which was asked for does not is noted.

    Also whether the file can be read further.
    """
    generator = wanted.generator
    drawn = generator.bit_generator.state if generator else {}
    notes: tuple[str, ...] = ()
    for way in list_ways(wanted.decoder):
        try:
            video = way.open(media)
            with decoder_errors(media.name):
                timeline = recall_timeline(partial(way.timeline, video), identity, way=way.name, on_disk=way.on_disk)
            if timeline is None:
                continue
            ledgers = _read(video, timeline, wanted, collector, media.progress)
        except FramesDifferError as difference:
            media.rewind()
            if generator:
                generator.bit_generator.state = drawn  # each way is asked for the same frames
            if way.noted:
                cause = str(difference) or "it does not give the frames that the packets announce"
                notes = (f"{way.name} was not used: {cause}",)
        else:
            is_reusable = not notes and not isinstance(video, SequentialVideo)
            return [replace(ledger, notes=ledger.notes + notes) for ledger in ledgers], is_reusable
    raise media.error("no way of decoding gives the frames that it announces")


# Confirming moves a frame by a tick at most: the second time what is sampled is mostly what was.
_MOST_CONFIRMATIONS = 5


def _read(
    video: Video, timeline: Timeline, wanted: Wanted, collector: FrameCollector, progress: ProgressBar
) -> list[ClipLedger]:
    timeline, allowed, chosen = _choose(video, timeline, wanted)
    notes = [note_repeats(numbers, len(allowed), wanted.short, name=video.name) for numbers in chosen]
    collector.begin(chosen, crops=wanted.crops)
    steps = _decode(video, timeline, chosen, wanted=wanted, collector=collector)
    total, what = (len(chosen), "clips") if len(chosen) > 1 else (len(set(chosen[0])), "frames")
    for _ in progress(steps, total, f"{what} of {video.name}"):
        pass
    damaged = set(video.damaged())
    of_video = timeline.notes + video.picture_notes() + note_uneven(timeline, allowed, wanted.spec, clips=wanted.clips)
    return [
        ClipLedger(
            stamps=timeline.stamps(numbers),
            notes=of_video + note_early_end(timeline, wanted.end_seconds) + repeats + note_damage(numbers, damaged),
            decoder=video.decoder,
            duration_seconds=timeline.duration_seconds or None,
            source=video.name,
        )
        for numbers, repeats in zip(chosen, notes, strict=True)
    ]


def _choose(video: Video, timeline: Timeline, wanted: Wanted) -> tuple[Timeline, range, list[list[int]]]:
    """Sample frame numbers, and confirm the timeline where they lie, until what is sampled is confirmed."""
    generator = wanted.generator
    drawn = generator.bit_generator.state if generator else {}
    for _ in range(_MOST_CONFIRMATIONS):
        allowed = timeline.within(wanted.start_seconds, wanted.end_seconds, name=video.name)
        chosen = _sampled(timeline, allowed, wanted)
        with decoder_errors(video.name):
            confirmed = video.confirm(timeline, [allowed[0], allowed[-1], *chain.from_iterable(chosen)])
        if confirmed is timeline:
            return timeline, allowed, chosen
        timeline = confirmed
        if generator:
            generator.bit_generator.state = drawn
    raise FramesDifferError


def _decode(
    video: Video, timeline: Timeline, chosen: Sequence[Sequence[int]], *, wanted: Wanted, collector: FrameCollector
) -> Iterator[None]:
    """Hand over each distinct frame of the clips as soon as it is decoded and fitted.

    Comes back a time for each clip that is whole; where there is only one, for each of its frames.
    """
    fit = _fit(wanted)
    missing = {number for numbers in chosen for number in numbers}
    lacking = [len(set(numbers)) for numbers in chosen]
    clips_with: dict[int, list[int]] = {}  # by frame number; a look at every clip for every frame would take long
    for clip, numbers in enumerate(chosen):
        for number in set(numbers):
            clips_with.setdefault(number, []).append(clip)
    shape: tuple[int, ...] | None = None
    for number, picture in guarded(video.name, video.decode(timeline, sorted(missing))):
        shape = shape or picture.shape
        if not wanted.resized and wanted.augment is None and picture.shape != shape:
            raise VideoError(video.name, tell_size_change(shape, picture.shape))
        missing.discard(number)
        collector.add(number, fit(picture))
        whole = 0
        for clip in clips_with[number]:
            lacking[clip] -= 1
            whole += not lacking[clip]
        yield from repeat(None, whole if len(chosen) > 1 else 1)
    if missing:
        raise FramesDifferError(f"it left out frame {min(missing)}")


def _fit(wanted: Wanted) -> Callable[[UInt8[np.ndarray, "h w c"]], list[UInt8[np.ndarray, "h2 w2 c"]]]:
    """What makes one picture a crop of each frame."""
    if wanted.augment is not None or not wanted.resized:
        return lambda frame: [frame]
    kept: tuple[Kept, ...] = ("centre",) if wanted.crops == 1 else ("start", "centre", "end")
    return partial(fit_crops, spec=wanted.spec, kept=kept)


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
