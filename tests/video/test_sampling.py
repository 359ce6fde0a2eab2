import math
from fractions import Fraction
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipact.clip_spec import ClipSpec, Sampling
from clipact.video.frame_rate import constant_rate, densest_half_seconds, is_uneven, simplest_ratio
from clipact.video.sampling import at_fps, random_in_segments, sample, segment_centers, spans, strided, uniform

counts = st.integers(1, 5000)
frame_counts = st.integers(1, 200)


def _seeded_random(available, frames):
    return random_in_segments(available, frames, generator=np.random.default_rng(3))


def _strided_by_three(available, frames):
    return strided(available, frames, 3)


def _at_seven_fps(available, frames):
    return at_fps(np.arange(available) / 30, frames, 7.0, duration_seconds=available / 30)


EVERY_WAY = [uniform, segment_centers, _seeded_random, _strided_by_three, _at_seven_fps]


@pytest.mark.parametrize("way", EVERY_WAY)
@given(available=counts, frames=frame_counts)
def test_as_many_as_asked_sorted_and_in_range(way, available, frames):
    chosen = way(available, frames)
    assert len(chosen) == frames
    assert chosen == sorted(chosen)
    assert chosen[0] >= 0
    assert chosen[-1] < available


@pytest.mark.parametrize("way", [uniform, segment_centers])
@given(available=counts, frames=frame_counts)
def test_no_frame_twice_while_there_are_enough_and_all_when_there_are_not(way, available, frames):
    assert len(set(way(available, frames))) == min(available, frames)


@given(available=counts, frames=st.integers(2, 200))
def test_uniform_has_both_end_points_and_is_linspace(available, frames):
    chosen = uniform(available, frames)
    assert (chosen[0], chosen[-1]) == (0, available - 1)
    assert chosen == np.linspace(0, available - 1, frames, dtype=int).tolist()


@given(available=counts, frames=frame_counts)
def test_middles_lie_at_the_exact_middles_cut_to_whole_frames(available, frames):
    exact = (np.arange(frames) + 0.5) * available / frames - 0.5
    early = exact - segment_centers(available, frames)
    assert early.min() > -1
    assert early.max() < 1.5


@given(segment=st.integers(0, 50), frames=st.integers(1, 64))
def test_middles_are_symmetric_where_segments_have_a_middle_frame(segment, frames):
    length = 2 * segment + 1
    chosen = segment_centers(length * frames, frames)
    assert chosen == [i * length + segment for i in range(frames)]
    assert chosen == [length * frames - 1 - i for i in reversed(chosen)]


def test_published_conventions_in_numbers():
    """Worked by hand from what each publication's code does with a video of so many frames."""
    # InternVideo2: whole borders 0, 12, 25, ..., 100; of 0 to 11 the middle is 5
    assert segment_centers(100, 8) == [5, 18, 30, 43, 55, 68, 80, 93]
    assert segment_centers(300, 8) == [18, 55, 93, 130, 168, 205, 243, 280]
    # PE: steps of 99 / 7
    assert uniform(100, 8) == [0, 14, 28, 42, 56, 70, 84, 99]
    # Open-VCLIP, 8 x 16, 3 clips, at 30 frames a second: windows of 128 frames from 0, 24 and 48, steps of 127 / 7
    assert [strided(200, 8, 16, clip=clip, clips=3) for clip in range(3)] == [
        [0, 18, 36, 54, 72, 90, 108, 127],
        [24, 42, 60, 78, 96, 114, 132, 151],
        [48, 66, 84, 102, 120, 138, 156, 175],
    ]
    assert strided(50, 8, 16, clip=2, clips=3) == [0, 18, 36, 49, 49, 49, 49, 49]


@given(available=st.integers(1, 2000), frames=st.integers(2, 32), stride=st.integers(1, 32))
def test_one_strided_window_is_central_and_its_frames_are_a_stride_apart(available, frames, stride):
    chosen = strided(available, frames, stride)
    if available >= frames * stride:
        steps = np.diff(chosen)
        assert steps.min() >= stride
        assert steps.max() <= stride + math.ceil(stride / (frames - 1))
        before, after = chosen[0], available - 1 - chosen[-1]
        assert 0 <= after - before <= 1


@given(
    gaps=st.lists(st.floats(0.001, 0.2), min_size=1, max_size=300),
    frames=st.integers(1, 64),
    rate_fps=st.floats(0.5, 60),
)
def test_by_fps_takes_the_frame_on_show_whatever_the_rate_of_the_video(gaps, frames, rate_fps):
    seconds = np.concatenate([[0.0], np.cumsum(gaps)])
    duration = float(seconds[-1]) + 0.04
    chosen = at_fps(seconds, frames, rate_fps, duration_seconds=duration)
    start = max(duration - frames / rate_fps, 0) / 2
    grace = float(np.median(gaps)) / 2  # never as much as half a frame; most of it where stamps pass for a steady rate
    for i, index in enumerate(chosen):
        moment = start + (i + 0.5) / rate_fps
        assert seconds[index] <= moment + grace
        assert index == len(seconds) - 1 or moment < seconds[index + 1] + grace


def _as_stamped(available, rate, rounded):
    seconds = np.arange(available) / rate
    return {
        "exactly": seconds,
        "to microseconds": np.round(seconds, 6),
        "to milliseconds": np.round(seconds, 3),
        "down to milliseconds": np.floor(seconds * 1000) / 1000,
    }[rounded]


@pytest.mark.parametrize("rounded", ["exactly", "to microseconds", "to milliseconds", "down to milliseconds"])
def test_by_fps_at_half_the_rate_is_every_other_frame(rounded):
    for available in range(66, 901):
        seconds = _as_stamped(available, 30, rounded)
        chosen = at_fps(seconds, 32, 15.0, duration_seconds=round(available / 30, 3))
        assert set(np.diff(chosen)) == {2}, available


@pytest.mark.parametrize("rate", [24, 25, 30, 50, 60, 120, 24000 / 1001, 30000 / 1001, 60000 / 1001])
@given(
    available=st.integers(40, 3000),
    every=st.integers(1, 5),
    frames=st.integers(2, 40),
    clips=st.integers(1, 10),
    rounded=st.sampled_from(["exactly", "to microseconds", "to milliseconds"]),
)
def test_by_fps_at_a_whole_part_of_the_rate_all_steps_are_alike(rate, available, every, frames, clips, rounded):
    available = max(available, frames * every)
    seconds = _as_stamped(available, rate, rounded)
    for clip in range(clips):
        chosen = at_fps(seconds, frames, rate / every, duration_seconds=available / rate, clip=clip, clips=clips)
        assert set(np.diff(chosen)) == {every}


def test_by_fps_in_numbers():
    assert at_fps(np.arange(15) / 25, 8, 25.0, duration_seconds=15 / 25) == [4, 5, 6, 7, 8, 9, 10, 11]
    assert at_fps(np.arange(100) / 25, 8, 2.0, duration_seconds=4.0) == [6, 18, 31, 43, 56, 68, 81, 93]
    # the rate of NTSC at 15 frames a second, as trained with: every other frame
    ntsc = np.arange(100) * 1001 / 30000
    assert set(np.diff(at_fps(ntsc, 32, 15.0, duration_seconds=100 * 1001 / 30000))) == {2}
    # 60 frames at 30 a second, then 10 at 5 a second
    seconds = np.concatenate([np.arange(60) / 30, 2 + np.arange(10) / 5])
    assert at_fps(seconds, 8, 2.0, duration_seconds=4.0) == [7, 22, 37, 52, 61, 63, 66, 68]
    part = at_fps(seconds[60:68], 6, 4.0, duration_seconds=1.5)  # from 2.0 to 3.5 s
    assert [60 + number for number in part] == [60, 61, 63, 64, 65, 66]
    assert at_fps(np.zeros(1), 3, 2.0, duration_seconds=0.0) == [0, 0, 0]


def test_by_fps_at_the_videos_own_rate_is_every_frame():
    assert at_fps(np.arange(30) / 10, 30, 10.0, duration_seconds=3.0) == list(range(30))


@given(available=counts, frames=frame_counts, seed=st.integers(0, 9))
def test_random_takes_one_of_each_segment_and_the_generator_decides(available, frames, seed):
    chosen = random_in_segments(available, frames, generator=np.random.default_rng(seed))
    assert chosen == random_in_segments(available, frames, generator=np.random.default_rng(seed))
    if available >= frames:
        borders = np.linspace(0, available, frames + 1).astype(int)
        assert all(low <= i < high for i, low, high in zip(chosen, borders[:-1], borders[1:], strict=True))


def test_random_reaches_every_frame():
    generator = np.random.default_rng(0)
    assert {i for _ in range(200) for i in random_in_segments(12, 4, generator=generator)} == set(range(12))


@given(available=counts, clips=st.integers(1, 50))
def test_spans_cover_every_frame_in_order_and_none_is_empty(available, clips):
    cut = spans(available, clips)
    assert len(cut) == clips
    assert all(len(span) >= 1 for span in cut)
    assert [span.start for span in cut] == sorted(span.start for span in cut)
    assert {i for span in cut for i in span} == set(range(available))
    if available >= clips:
        lengths = {len(span) for span in cut}
        assert max(lengths) - min(lengths) <= 1
        assert sum(map(len, cut)) == available


@pytest.mark.parametrize("sampling", get_args(Sampling))
@given(available=st.integers(1, 400), clips=st.integers(1, 8), seed=st.none() | st.integers(0, 5))
def test_a_spec_is_carried_out_for_each_clip(sampling, available, clips, seed):
    spec = ClipSpec(frames=6, sampling=sampling, stride=5, rate_fps=4.0)
    generator = None if seed is None else np.random.default_rng(seed)
    seconds = np.arange(available) / 25
    chosen = sample(spec, seconds, duration_seconds=available / 25, clips=clips, generator=generator)
    assert [len(numbers) for numbers in chosen] == [6] * clips
    assert all(numbers == sorted(numbers) and 0 <= numbers[0] <= numbers[-1] < available for numbers in chosen)
    firsts = [numbers[0] for numbers in chosen]
    assert firsts == sorted(firsts) or generator is not None


_SCREEN_RECORDING = np.concatenate([np.arange(60) / 60, [10.0, 20.0, 30.0, 39.0]])  # 60 frames in 1 s of 40


@pytest.mark.parametrize("sampling", ["uniform", "segment_centers", "strided"])
def test_where_the_rate_varies_strongly_frames_are_taken_at_equal_times(sampling):
    spec = ClipSpec(frames=8, sampling=sampling, stride=8)
    (chosen,) = sample(spec, _SCREEN_RECORDING, duration_seconds=40.0)
    # the frames on show at about 2.5, 7.5, ... 37.5 s; a twentieth of a frame's usual time is left aside
    assert chosen[1:-1] == [59, 60, 60, 61, 61, 62]
    assert sum(number < 59 for number in chosen) <= 1
    by_number = ClipSpec(frames=8, sampling=f"{sampling}_by_number", stride=8)
    (counted,) = sample(by_number, _SCREEN_RECORDING, duration_seconds=40.0)
    assert sum(number < 59 for number in counted) >= 7
    assert counted == sample(spec, np.arange(64) / 25, duration_seconds=64 / 25)[0]


def test_at_equal_times_in_training_and_over_several_clips():
    spec = ClipSpec(frames=4, sampling="segment_centers")
    first, second = sample(spec, _SCREEN_RECORDING, duration_seconds=40.0, clips=2)
    assert (first[0], second) == (59, [61, 61, 62, 62])
    draws = [
        sample(spec, _SCREEN_RECORDING, duration_seconds=40.0, generator=np.random.default_rng(i))[0]
        for i in range(200)
    ]
    assert {number for numbers in draws for number in numbers[1:]} == {60, 61, 62, 63}


@given(
    available=st.integers(3, 600),
    rate=st.sampled_from([1 / 3600, 1, 10, 23.976, 29.97, 60, 240]),
    rounded=st.sampled_from(["exactly", "to microseconds", "to milliseconds"]),
    cut=st.floats(0, 1),
    dropped=st.lists(st.integers(1, 598), max_size=2),
)
def test_a_steady_rate_is_not_uneven_wherever_it_is_cut_and_with_few_frames_dropped(
    available, rate, rounded, cut, dropped
):
    seconds = _as_stamped(available, rate, rounded)
    low, high = constant_rate(seconds)
    assert low * 0.999999 <= rate <= high * 1.000001
    assert high / low - 1 < max(1e-6, 2.7e-3 / seconds[-1])
    kept = np.delete(seconds, [number for number in dropped if number < available - 1])
    assert not is_uneven(kept)
    spec = ClipSpec(frames=6, sampling="segment_centers")
    chosen = sample(spec, seconds, duration_seconds=float(seconds[-1]) + cut / rate)
    assert chosen == [segment_centers(available, 6)]


def test_what_is_uneven_and_how_much_holds_half_of_the_frames():
    assert is_uneven(_SCREEN_RECORDING)
    assert densest_half_seconds(_SCREEN_RECORDING) == pytest.approx(31 / 60)
    assert is_uneven(np.concatenate([np.arange(60) / 30, 2 + np.arange(10) / 5]))
    by_turns = np.concatenate([np.arange(60) / 30, 2 + np.arange(48) / 24])  # a phone in changing light
    assert not is_uneven(by_turns)
    assert constant_rate(by_turns) is None
    assert not is_uneven(np.zeros(1))
    assert not is_uneven(np.array([0.0, 9.0]))
    assert constant_rate(np.zeros(1)) is None
    assert simplest_ratio(*constant_rate(np.round(np.arange(100) / 30, 3))) == 30
    assert simplest_ratio(1.999, 2.002) == 2
    assert simplest_ratio(12.49, 12.503) == Fraction(25, 2)
    assert simplest_ratio(0.0999, 0.1001) == Fraction(1, 10)
