"""Load clips from a video source: its frames, collected in one array a clip."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from clipact.clip_spec import ClipSpec
from clipact.errors import UsageError
from clipact.progress import ProgressBar, no_progress
from clipact.video.augment import Augment, DrawnAugment
from clipact.video.clip import Clip
from clipact.video.collect import FrameCollector, Wanted, decode_into
from clipact.video.ledger_notes import Short
from clipact.video.open_source import VideoSource
from clipact.video.ways import check_decoder


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
    decoder_threads: int | None = None,
    time_limit_seconds: float | None = None,
    progress: ProgressBar = no_progress,
) -> Clip:
    """One clip: the frames that `spec` samples between two times, at its size.

    source              a file, a folder of numbered pictures, an address, "-", bytes, a file object or an array
    start, end          seconds, counted from the first frame
    spec                None: 8 frames from the middles of equal segments, at their own size
    frames              overrules the number in the spec
    short               fewer frames than wanted repeat and are noted, or ("error") are a VideoError
    generator           takes a random frame of each segment; an `augment`, which may give another size, draws from it
    decoder_threads     None: as many as FFmpeg takes, which decode one video soonest. Where several threads call it, 1
                        takes 14 % less work (H.264, 1080p); the frames are the same. Those that are damaged look the
                        same every time only with 1: several threads conceal damage as it happens to come
    time_limit_seconds  decodes in a process of its own, which is ended when the time is up
    progress            shows what is done inside the video: packets read, frames decoded; not in a process of its own

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
        decoder_threads=decoder_threads,
    )
    return load_wanted(source, wanted, time_limit_seconds=time_limit_seconds, progress=progress)[0]


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
    decoder_threads: int | None = None,
    time_limit_seconds: float | None = None,
    progress: ProgressBar = no_progress,
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
        decoder_threads=decoder_threads,
    )
    return load_wanted(source, wanted, time_limit_seconds=time_limit_seconds, progress=progress)


def load_wanted(
    source: VideoSource,
    wanted: Wanted,
    *,
    time_limit_seconds: float | None = None,
    progress: ProgressBar = no_progress,
) -> tuple[Clip, ...]:
    """The clips that are wanted of the source; as `load_clip` says."""
    check_decoder(wanted.decoder)
    if time_limit_seconds is not None:
        from clipact.video.decode_subprocess import load_in_subprocess

        return load_in_subprocess(source, wanted, time_limit_seconds=time_limit_seconds)
    stacked = StackedFrames() if wanted.augment is None else AugmentedFrames(wanted)
    ledgers = decode_into(source, wanted, stacked, progress=progress)
    return tuple(
        Clip(
            frames=frames,
            stamps=ledger.stamps,
            source=ledger.source,
            decoder=ledger.decoder,
            duration_seconds=ledger.duration_seconds,
            notes=ledger.notes,
        )
        for frames, ledger in zip(stacked.arrays(), ledgers, strict=True)
    )


class _Stack:
    """The frames of one view in one array, each put in all of its places when it comes."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = numbers
        self._array: np.ndarray | None = None

    def places(self, number: int) -> list[int]:
        """Where the view shows this frame."""
        return [place for place, other in enumerate(self.numbers) if other == number]

    def put(self, places: Sequence[int], pictures: UInt8[np.ndarray, "p h w c"]) -> None:
        """Store a picture a place, or one for all of them."""
        if self._array is None:
            self._array = np.empty((len(self.numbers), *pictures.shape[1:]), np.uint8)
        self._array[places] = pictures

    def finish(self) -> UInt8[np.ndarray, "t h w c"]:
        """Return the array, once all of its frames came."""
        assert self._array is not None
        return self._array


class StackedFrames(FrameCollector):
    """Each view of the clips as one array, in the order of `load_clips`: clip by clip, its crops after each other."""

    def __init__(self) -> None:
        self._views: list[list[_Stack]] = []

    def begin(self, clips: Sequence[Sequence[int]], *, crops: int) -> None:
        """Begin an array a view."""
        self._views = [[_Stack(numbers) for _ in range(crops)] for numbers in clips]

    def add(self, number: int, pictures: Sequence[UInt8[np.ndarray, "h w c"]]) -> None:
        """Put one frame in its places."""
        for views in self._views:
            places = views[0].places(number)
            if places:
                for view, picture in zip(views, pictures, strict=True):
                    view.put(places, picture[None])

    def finish(self) -> None:
        """Nothing: the arrays are full."""

    def arrays(self) -> list[UInt8[np.ndarray, "t h w c"]]:
        """Return the frames of each view."""
        return [view.finish() for views in self._views for view in views]


class AugmentedFrames(FrameCollector):
    """Each view as one array, changed as an augment says: drawn for each view, and for each place where it drifts."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._views: list[tuple[_Stack, DrawnAugment]] = []

    def begin(self, clips: Sequence[Sequence[int]], *, crops: int) -> None:
        """Draw the augment of each view."""
        augment, spec, generator = self._wanted.augment, self._wanted.spec, self._wanted.generator
        assert augment is not None
        if generator is None:
            raise UsageError("an augment is random; give the generator that it draws from")
        self._views = [
            (_Stack(numbers), DrawnAugment(augment, spec, generator=generator))
            for numbers in clips
            for _ in range(crops)
        ]
        self._drifts = bool(augment.drift)

    def add(self, number: int, pictures: Sequence[UInt8[np.ndarray, "h w c"]]) -> None:
        """Change one decoded frame for each view that shows it."""
        (picture,) = pictures
        for view, drawn in self._views:
            places = view.places(number)
            if places:
                last = max(len(view.numbers) - 1, 1)
                moments = [place / last for place in places] if self._drifts else [0.0]
                view.put(places, np.stack([drawn(picture, moment=moment) for moment in moments]))

    def finish(self) -> None:
        """Nothing: the arrays are full."""

    def arrays(self) -> list[UInt8[np.ndarray, "t h w c"]]:
        """Return the frames of each view."""
        return [view.finish() for view, _ in self._views]
