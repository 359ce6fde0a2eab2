import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipact.clip_spec import ClipSpec
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
    for i, index in enumerate(chosen):
        moment = start + (i + 0.5) / rate_fps
        assert seconds[index] <= moment
        assert index == len(seconds) - 1 or moment < seconds[index + 1]


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


@pytest.mark.parametrize("sampling", ["uniform", "segment_centers", "strided", "fps"])
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
