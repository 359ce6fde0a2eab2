"""How evenly the frames of a video follow each other: a constant rate, or one that varies so much that it matters.

Pure arithmetic on the times at which frames are shown. Time stamps are often rounded (Matroska: to milliseconds), so
that a constant rate has to be found behind them.
"""

from fractions import Fraction

import numpy as np
from jaxtyping import Float

# A time stamp may lie this far from that of a constant rate: a tenth of a step, or what cutting to whole milliseconds
# takes; always less than half a step, so that no frame is taken for its neighbour.
_LOOSE_STEPS, _LOOSE_SECONDS, _LOOSE_MOST_STEPS = 0.1, 0.00105, 0.4
_ROUNDED_SECONDS = 0.0005  # how far a time stamp in milliseconds lies from the time that is meant

_MOST_PARTS = 1001  # the largest denominator that rates have: 30000 / 1001

_UNEVEN_SHARE, _UNEVEN_FRAMES = 0.2, 2


def constant_rate(seconds: Float[np.ndarray, " frames"]) -> tuple[float, float] | None:
    """Return the lowest and the highest constant rate that time stamps allow, in frames a second.

    Args:
        seconds: When each frame is shown, rising; at best rounded to milliseconds.

    Returns:
        Two rates that differ by the error of two rounded stamps: 29.999 and 30.001 for 60 seconds at 30 frames a
        second. None when the frames do not follow each other evenly, or there is only one.
    """
    steps = len(seconds) - 1
    if steps < 1:
        return None
    length = float(seconds[-1] - seconds[0])
    step = length / steps
    loose = min(max(_LOOSE_STEPS * step, _LOOSE_SECONDS), _LOOSE_MOST_STEPS * step)
    if not np.abs(seconds - seconds[0] - np.arange(steps + 1) * step).max() <= loose:
        return None
    error = min(2 * _ROUNDED_SECONDS, length / 4)
    return steps / (length + error), steps / (length - error)


def simplest_ratio(low: float, high: float) -> Fraction:
    """Return the fraction with the smallest denominator between two positive numbers; their middle when it is large."""
    middle = (low + high) / 2
    nearest = (Fraction(round(middle * parts), parts) for parts in range(1, _MOST_PARTS + 1))
    return next((ratio for ratio in nearest if low <= ratio <= high), Fraction(middle))


def is_uneven(seconds: Float[np.ndarray, " frames"]) -> bool:
    """Return whether the rate varies so much that equal numbers are far from equal times.

    They are where, at some frame, the share of the frames that have been shown and the share of the time that has
    passed differ by more than a fifth, and by more than two frames. A few dropped frames, a hole of a few seconds, or
    24 and 30 frames a second by turns are not so uneven; a screen recording that stands still most of the time is.

    Args:
        seconds: When each frame is shown, rising.
    """
    steps = len(seconds) - 1
    if steps < 2:
        return False
    numbers = np.arange(steps + 1) / steps
    times = (seconds - seconds[0]) / (seconds[-1] - seconds[0])
    return bool(np.abs(times - numbers).max() > max(_UNEVEN_SHARE, _UNEVEN_FRAMES / steps))


def densest_half_seconds(seconds: Float[np.ndarray, " frames"]) -> float:
    """Return the length of the shortest stretch that holds half of the frames, rounded up."""
    half = (len(seconds) + 1) // 2
    return float((seconds[half - 1 :] - seconds[: len(seconds) - half + 1]).min())
