"""The collector holds a batch and the clips that are not whole, no more; a decoder may start over."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipact.clip_spec import FrameStamp
from clipact.embed.feature_collector import BatchEncoder, FeatureCollector, encode_clip
from clipact.video.clip import Clip
from clipact.video.load import load_clips
from tests.embed.straight_loop import SPEC, clip_encoder, counting

SIDE = 8
SMALL = replace(SPEC, size=(SIDE, SIDE))


def picture(number, crop=0):
    """The picture of a frame: its number and crop are in it."""
    return np.random.default_rng((number, crop)).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def encoder_of(*, by_frame, frames=4, frames_at_once=8, seen=None):
    tower = "quick frames" if by_frame else "mean colour"
    encoder = clip_encoder(tower, spec=SMALL.with_frames(frames)).with_frames_at_once(frames_at_once)
    return counting(encoder, [] if seen is None else seen)


def whole(features):
    """The features of all clips as one array."""
    return features.of(slice(None))


def collect(encoder, clips, *, crops=1, order=None, pictures=picture):
    collector = FeatureCollector(encoder, BatchEncoder(encoder))
    collector.begin(clips, crops=crops)
    numbers = sorted({number for clip in clips for number in clip})
    for number in order or numbers:
        collector.add(number, [pictures(number, crop) for crop in range(crops)])
    collector.finish()
    return whole(collector.features)


def encode_straight(encoder, clips, *, crops=1):
    """Each clip by itself, whole."""
    views = [np.stack([picture(number, crop) for number in clip]) for clip in clips for crop in range(crops)]
    if encoder.by_frame:
        return np.stack([encoder.encode(view[:, None])[:, 0] for view in views])
    return np.stack([encoder.encode(view[None])[0] for view in views])


CLIPS = st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=4)


@given(CLIPS, st.sampled_from([1, 3]), st.booleans(), st.sampled_from([1, 4, 7, 64]), st.randoms())
def test_any_clips_in_any_order_are_as_each_by_itself(clips, crops, by_frame, frames_at_once, shuffled):
    """Clips that overlap, repeat frames, or are the same; frames in any order."""
    encoder = encoder_of(by_frame=by_frame, frames=3, frames_at_once=frames_at_once)
    order = sorted({number for clip in clips for number in clip})
    shuffled.shuffle(order)
    found = collect(encoder, clips, crops=crops, order=order)
    np.testing.assert_allclose(found, encode_straight(encoder, clips, crops=crops), rtol=0, atol=1e-5)


class Watched:
    """Makes pictures and knows how many of them are held."""

    def __init__(self):
        self.alive, self.most, self.made = 0, 0, 0

    def __call__(self, number, crop):
        made = picture(number, crop)
        weakref.finalize(made, self._gone)
        self.made += 1
        self.alive += 1
        self.most = max(self.most, self.alive)
        return made

    def _gone(self):
        self.alive -= 1


@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize(("by_frame", "frames_at_once", "most"), [
    (True, 8, 8),  # a batch of pictures
    (True, 1, 1),
    (False, 8, 12),  # a batch of two clips is copied; pictures are those of the clips that are not whole: here, one
    (False, 1, 12),
])  # fmt: skip
def test_no_more_pictures_are_held_than_a_batch_and_the_clips_that_are_not_whole(by_frame, frames_at_once, crops, most):
    """Ten clips of twelve frames, one after the other."""
    encoder = encoder_of(by_frame=by_frame, frames=12, frames_at_once=frames_at_once)
    clips = [list(range(first, first + 12)) for first in range(0, 120, 12)]
    pictures = Watched()
    found = collect(encoder, clips, crops=crops, pictures=pictures)
    assert pictures.made == 120 * crops
    assert pictures.most <= (most if by_frame else most * crops) + crops  # those that come
    gc.collect()
    assert pictures.alive == 0
    np.testing.assert_allclose(found, encode_straight(encoder, clips, crops=crops), rtol=0, atol=1e-5)


def test_windows_that_overlap_hold_the_frames_of_those_that_are_open():
    """Strided windows share frames: a frame is let go when the last window that shows it is whole."""
    encoder = encoder_of(by_frame=False, frames=4, frames_at_once=4)
    clips = [[first + 5 * step for step in range(4)] for first in range(0, 200, 5)]
    pictures = Watched()
    found = collect(encoder, clips, pictures=pictures)
    assert pictures.most <= 4 + 1  # four windows are open at a time, and show four frames
    np.testing.assert_allclose(found, encode_straight(encoder, clips), rtol=0, atol=1e-5)


@pytest.mark.parametrize("by_frame", [True, False])
def test_a_decoder_that_starts_over_leaves_nothing_of_before(by_frame):
    encoder = encoder_of(by_frame=by_frame, frames=3)
    collector = FeatureCollector(encoder, BatchEncoder(encoder))
    collector.begin([[0, 1, 2], [2, 3, 4], [5, 6, 7]], crops=3)
    for number in (0, 1, 2, 3):
        collector.add(number, [picture(90 + number, crop) for crop in range(3)])  # wrong ones
    clips = [[1, 2, 3], [3, 4, 0]]
    collector.begin(clips, crops=1)
    for number in range(5):
        collector.add(number, [picture(number)])
    collector.finish()
    np.testing.assert_allclose(whole(collector.features), encode_straight(encoder, clips), rtol=0, atol=1e-5)


@pytest.mark.parametrize("by_frame", [True, False])
def test_a_shared_batch_gives_each_its_own_and_is_always_full(by_frame):
    """Features are bit for bit the same, whoever is beside; who shares does not flush."""
    seen = []
    encoder = encoder_of(by_frame=by_frame, frames=3, frames_at_once=12, seen=seen)
    features = {}
    for beside in ([1], [1, 2], [2, 1], [3, 2, 1], [1, 2, 3]):
        batch = BatchEncoder(encoder, shared=True)
        collectors = {first: FeatureCollector(encoder, batch, alone=False) for first in beside}
        for first, collector in collectors.items():
            collector.begin([[10 * first, 10 * first + 1, 10 * first + 2]], crops=1)
            for number in range(10 * first, 10 * first + 3):
                collector.add(number, [picture(number)])
            collector.finish()
        assert not seen
        batch.flush()
        assert [part.shape[:2] for part in seen] == [(12, 1) if by_frame else (4, 3)]
        assert batch.seconds > 0
        seen.clear()
        for first, collector in collectors.items():
            assert (
                features.setdefault(first, whole(collector.features).tobytes()) == whole(collector.features).tobytes()
            )


@pytest.mark.parametrize("by_frame", [True, False])
@pytest.mark.parametrize("crops", [1, 3])
def test_clips_that_are_decoded_already_are_as_those_that_come(by_frame, crops, films):
    encoder = clip_encoder("frames" if by_frame else "vivit", clips=2, crops=crops)
    clips = load_clips(films / "c.mp4", encoder.spec, clips=2, crops=crops)
    found = []
    for apart in (False, True):
        collector = FeatureCollector(encoder, BatchEncoder(encoder))
        collector.collect_clips(clips, crops=crops, apart=apart)
        found.append(whole(collector.features))
    expected = np.stack([encode_clip(encoder, clip.frames) for clip in clips])
    for features in found:
        np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5)


def test_features_of_a_frame_are_there_once():
    """A hundred clips that share five frames have five features, and give any of the clips."""
    encoder = encoder_of(by_frame=True, frames=3)
    clips = [[number % 5, (number + 1) % 5, (number + 1) % 5] for number in range(100)]
    collector = FeatureCollector(encoder, BatchEncoder(encoder))
    collector.begin(clips, crops=3)
    for number in range(5):
        collector.add(number, [picture(number, crop) for crop in range(3)])
    collector.finish()
    features, expected = collector.features, encode_straight(encoder, clips, crops=3)
    assert (len(features), len(features.values)) == (300, 15)
    np.testing.assert_allclose(whole(features), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(features.of(slice(7, 9)), expected[7:9], rtol=0, atol=1e-5)


def test_pictures_that_were_changed_apart_are_all_encoded():
    """Augmented clips: frame numbers repeat, pictures do not."""
    encoder = encoder_of(by_frame=True, frames=4)
    views = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    clips = [
        Clip(
            frames=np.stack([picture(number) for number in view]),
            stamps=(FrameStamp(7, 0.7),) * 4,
            source="made",
            decoder="none",
            duration_seconds=None,
            notes=(),
        )
        for view in views
    ]
    collector = FeatureCollector(encoder, BatchEncoder(encoder))
    collector.collect_clips(clips, crops=1, apart=True)
    np.testing.assert_allclose(whole(collector.features), encode_straight(encoder, views), rtol=0, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 8, 9, 20])
def test_one_clip_of_any_number_of_frames(frames):
    seen = []
    encoder = encoder_of(by_frame=True, seen=seen)
    view = np.stack([picture(number) for number in range(frames)])
    found = encode_clip(encoder, view)
    assert max(len(batch) for batch in seen) <= 8
    np.testing.assert_allclose(found, encoder.encode(view[:, None])[:, 0], rtol=0, atol=1e-5)
