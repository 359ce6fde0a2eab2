"""Which frames of a video make a clip: arithmetic on frame numbers and times, and nothing else.

Each way of sampling returns one list of numbers a clip: as many as asked, sorted, each in 0..available-1. When a
video has fewer frames than asked, frames repeat: `uniform` and `segment_centers` spread them evenly, so that motion is
slowed down and never frozen at the end, `random_in_segments` draws some twice, windows that reach past the end
(`strided`, `at_fps`) hold the last one. `load` says so in the ledger, or refuses, as its caller chose.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from clipact.clip_spec import BY_NUMBER, ClipSpec
from clipact.video.frame_rate import constant_rate, is_uneven, simplest_ratio

# A frame is on show from this part of a step before its time stamp on: more than time stamps are rounded by, and less
# than any usual pair of rates puts between a moment and the next frame.
_GRACE = Fraction(1, 20)
_ROUNDED_FRAMES = 0.1  # so far from a whole number of frames may a length be that is meant to be one


def uniform(available: int, frames: int) -> list[int]:
    """Evenly spread frame numbers from the first frame to the last, both included (PE, arXiv 2504.13181).

    NumPy's linspace with the fractions cut off. One frame alone is the first.
    """
    return _whole(np.linspace(0, available - 1, frames))


def segment_centers(available: int, frames: int) -> list[int]:
    """The middle of each of `frames` equal segments (TSN, arXiv 1608.00859, as InternVideo2 rounds it).

    Borders are cut to whole frames; of two middle frames the earlier is taken. Where there are fewer frames than
    segments InternVideo2 repeats the last one; here they repeat evenly.
    """
    if available < frames:
        return [(2 * i + 1) * available // (2 * frames) for i in range(frames)]
    return [(low + high - 1) // 2 for low, high in pairwise(_whole(np.linspace(0, available, frames + 1)))]


def random_in_segments(available: int, frames: int, *, generator: np.random.Generator) -> list[int]:
    """A random frame of each of `frames` equal segments, for training (TSN, arXiv 1608.00859)."""
    if available < frames:
        return sorted(generator.integers(available, size=frames).tolist())
    borders = _whole(np.linspace(0, available, frames + 1))
    return [int(generator.integers(low, high)) for low, high in pairwise(borders)]


def strided(available: int, frames: int, stride: int, *, clip: int = 0, clips: int = 1) -> list[int]:
    """The frames of window `clip` of `clips`, each `frames` x `stride` long, `stride` frames from each other.

    As SlowFast and Open-VCLIP sample: the window's first and last frame are included, so that neighbours are
    (frames x stride - 1) / (frames - 1) apart; `clips` windows start at equal steps from 0; a video shorter than a
    window repeats its last frame. Deviations: one window alone is centred, theirs begins at 0; the stride counts
    frames of this video, theirs frames at 30 a second.
    """
    start = _window_start(float(available - frames * stride), clip, clips)
    if clips == 1:
        start = math.floor(start)
    window = np.linspace(start, start + frames * stride - 1, frames)
    return _whole(np.clip(window, 0, available - 1))


def at_fps(
    seconds: Float[np.ndarray, " available"],
    frames: int,
    rate_fps: float,
    *,
    duration_seconds: float,
    clip: int = 0,
    clips: int = 1,
) -> list[int]:
    """The frames on show at `rate_fps` moments a second, in window `clip` of `clips`, whatever the video's own rate.

    `seconds` says when each frame appears, rising. A window lasts frames / rate_fps seconds and is placed as in
    `strided`; each moment is the middle of its share. Time stamps decide, so a variable frame rate is no matter.

    Moments often fall on time stamps themselves (15 a second of a video at 30), where rounding must not choose between
    neighbours. Where the rate is constant, all is therefore counted in frames: of k times `rate_fps`, all steps are k.
    And a frame counts as on show from a twentieth of a step before its time stamp on.
    """
    if (rates := constant_rate(seconds)) is not None:
        step = simplest_ratio(rates[0] / rate_fps, rates[1] / rate_fps)
        length = duration_seconds * sum(rates) / 2
        return _each_step(len(seconds), frames, step, length, clip=clip, clips=clips)
    start = seconds[0] + _window_start(duration_seconds - frames / rate_fps, clip, clips)
    moments = start + (np.arange(frames) + 0.5) / rate_fps
    return _on_show(seconds, moments)


def spans(available: int, clips: int) -> list[range]:
    """The frame numbers cut into `clips` equal, adjoining spans, each of one frame at least.

    With fewer frames than clips, neighbours share a frame.
    """
    lows = [min(i * available // clips, available - 1) for i in range(clips)]
    highs = [(i + 1) * available // clips for i in range(clips)]
    return [range(low, max(low + 1, high)) for low, high in zip(lows, highs, strict=True)]


def sample(
    spec: ClipSpec,
    seconds: Float[np.ndarray, " available"],
    *,
    duration_seconds: float,
    clips: int = 1,
    generator: np.random.Generator | None = None,
) -> list[list[int]]:
    """The frame numbers of each clip, as `spec.sampling` says.

    "uniform" and "segment_centers" sample each of `clips` equal spans; "strided" and "fps" place windows over it.
    With a generator a random frame is taken from each segment, whatever the spec says: that is how training samples.

    Where `takes_equal_times`, the numbers are those of a video of as many frames at a constant rate: the frame is taken
    that is on show in the middle of each number's share of the time.
    """
    available = len(seconds)
    if generator is None and spec.sampling == "fps":
        return [
            at_fps(seconds, spec.frames, spec.rate_fps, duration_seconds=duration_seconds, clip=i, clips=clips)
            for i in range(clips)
        ]
    if generator is not None:
        chosen = _each_span(available, clips, lambda n: random_in_segments(n, spec.frames, generator=generator))
    else:
        match spec.sampling.removesuffix(BY_NUMBER):
            case "uniform":
                chosen = _each_span(available, clips, lambda n: uniform(n, spec.frames))
            case "segment_centers":
                chosen = _each_span(available, clips, lambda n: segment_centers(n, spec.frames))
            case "strided":
                chosen = [strided(available, spec.frames, spec.stride, clip=i, clips=clips) for i in range(clips)]
            case unknown:
                raise AssertionError(unknown)
    if not takes_equal_times(spec, seconds, clips=clips):
        return chosen
    shares = (np.arange(available) + 0.5) / available
    shown = _on_show(seconds, seconds[0] + shares * duration_seconds)
    return [[shown[number] for number in numbers] for numbers in chosen]


def takes_equal_times(spec: ClipSpec, seconds: Float[np.ndarray, " available"], *, clips: int = 1) -> bool:
    """Whether the rate varies so strongly that a sampling which counts frames takes them at equal times instead.

    Not where there are no more frames than asked for, all of which are shown then.
    """
    if spec.sampling.endswith(BY_NUMBER):
        return False
    return (spec.sampling == "fps" or len(seconds) > spec.frames * clips) and is_uneven(seconds)


def _each_span(available: int, clips: int, choose: Callable[[int], Sequence[int]]) -> list[list[int]]:
    return [[span[i] for i in choose(len(span))] for span in spans(available, clips)]


def _each_step(available: int, frames: int, step: Fraction, length: float, *, clip: int, clips: int) -> list[int]:
    """`at_fps` of `length` frames at a constant rate, all counted in frames, which is exact."""
    # Whole but for the rounding of time stamps: the length of a file, or of a part cut at frames.
    whole = abs(length - round(length)) <= _ROUNDED_FRAMES
    slack = max((round(length) if whole else Fraction(length)) - frames * step, Fraction(0))
    start = slack / 2 if clips == 1 else slack * clip / clips
    places = [math.floor(start + (2 * i + 1) * step / 2 + _GRACE) for i in range(frames)]
    return [min(place, available - 1) for place in places]


def _on_show(seconds: np.ndarray, moments: np.ndarray) -> list[int]:
    """The frame on show at each moment; the first before all, and each a little before its time stamp."""
    steps = np.diff(seconds)
    usual = float(np.median(steps)) if len(steps) else 0.0
    from_seconds = seconds - float(_GRACE) * np.minimum(np.concatenate([[0.0], steps]), usual)
    return _whole(np.clip(np.searchsorted(from_seconds, moments, side="right") - 1, 0, len(seconds) - 1))


def _window_start(slack: float, clip: int, clips: int) -> float:
    """Where a window begins when `slack` is left beside it (below zero: the video is shorter than the window)."""
    slack = max(slack, 0)
    return slack / 2 if clips == 1 else slack * clip / clips


def _whole(numbers: np.ndarray) -> list[int]:
    return [int(number) for number in numbers]
