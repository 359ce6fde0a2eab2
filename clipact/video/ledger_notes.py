"""What the ledger of a clip notes, in sentences: an uneven rate, repeated frames, an early end, damage."""

from collections.abc import Sequence
from typing import Literal

from clipact.clip_spec import ClipSpec
from clipact.errors import VideoError
from clipact.video.clip import Timeline
from clipact.video.frame_rate import densest_half_seconds, is_uneven
from clipact.video.sampling import takes_equal_times

Short = Literal["repeat", "error"]


def tell_size_change(before: Sequence[int], after: Sequence[int]) -> str:
    """The cause of a VideoError when frames of two shapes would come in one clip."""
    return (
        f"its frames change size, from {before[1]} x {before[0]} to {after[1]} x {after[0]}; "
        "give a spec, so that all come out alike"
    )


def note_early_end(timeline: Timeline, end_seconds: float | None) -> tuple[str, ...]:
    """A note when the video ends before the end that was asked for."""
    duration = timeline.duration_seconds
    if end_seconds is None or not duration or end_seconds <= duration + 0.05:  # who asks for 10 s of 9.98 means all
        return ()
    return (f"it ends at {duration:.3f} s, before the end asked for, {end_seconds:g} s",)


def note_uneven(timeline: Timeline, allowed: range, spec: ClipSpec | None = None, *, clips: int = 1) -> tuple[str, ...]:
    """A note when the rate varies strongly among the frames that may be taken, and how a spec takes them then."""
    seconds = timeline.seconds[allowed.start : allowed.stop]
    if not is_uneven(seconds):
        return ()
    half, whole = densest_half_seconds(seconds), float(seconds[-1] - seconds[0])
    said = f"variable frame rate: half of its frames come from {half:.1f} of {whole:.1f} s"
    if spec is None:
        return (said,)
    taken = "equal times" if takes_equal_times(spec, seconds, clips=clips) else "equal numbers"
    return (f"{said}; frames are taken at {taken}",)


def note_repeats(numbers: Sequence[int], available: int, short: Short, *, name: str) -> tuple[str, ...]:
    """A note, or a VideoError, when frames repeat: there are too few in the span, or the sampling passes some by."""
    distinct = len(set(numbers))
    if distinct == len(numbers):
        return ()
    used = f"{available} there" if distinct == available else f"{distinct} of the {available} there used"
    said = f"{len(numbers)} frames asked for, {used}"
    if short == "error":
        raise VideoError(name, f"{said}; ask for fewer, or let them repeat")
    return (f"{said}: some repeat",)


def note_damage(numbers: Sequence[int], damaged: set[int]) -> tuple[str, ...]:
    """A note when frames of a clip came out of damaged packets."""
    hurt = len(damaged.intersection(numbers))
    return (f"{hurt} of {len(set(numbers))} frames are damaged",) if hurt else ()
