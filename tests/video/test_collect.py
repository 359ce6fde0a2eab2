"""What a collector is given is what `load_clips` stacks."""

import io
from itertools import product

import numpy as np
import pytest
from PIL import Image

from clipact.clip_spec import ClipSpec
from clipact.errors import VideoError
from clipact.video.augment import Augment
from clipact.video.collect import FrameCollector, Wanted, collect_frames
from clipact.video.decode_pyav import PyavVideo
from clipact.video.inspect import inspect
from clipact.video.load import load_clip, load_clips

from .drawing import draw_video, numbered_picture

SPEC = ClipSpec(frames=4, size=(24, 24))


class Kept(FrameCollector):
    """Keeps every call, and stacks the pictures."""

    def __init__(self):
        self.begun, self.finished = 0, False

    def begin(self, clips, *, crops):
        assert not self.finished
        self.begun += 1
        self.clips, self.crops, self.pictures = clips, crops, {}

    def add(self, number, pictures):
        assert number not in self.pictures  # each distinct frame once
        assert len(pictures) == self.crops
        assert not self.finished
        self.pictures[number] = [picture.copy() for picture in pictures]

    def finish(self):
        assert not self.finished
        self.finished = True

    def arrays(self):
        views = product(self.clips, range(self.crops))
        return [np.stack([self.pictures[number][crop] for number in numbers]) for numbers, crop in views]


def assert_like_load_clips(source, spec=SPEC, *, clips=1, crops=1, seed=None, time_limit_seconds=None, **span):
    def generator():
        return None if seed is None else np.random.default_rng(seed)

    kept = Kept()
    wanted = Wanted(spec=spec, clips=clips, crops=crops, generator=generator(), **span)
    ledgers = collect_frames(source, wanted, kept, time_limit_seconds=time_limit_seconds)
    expected = load_clips(source, spec, clips=clips, crops=crops, generator=generator(), **span)
    assert kept.finished
    assert set(kept.pictures) == {number for numbers in kept.clips for number in numbers}
    for array, ledger, clip in zip(kept.arrays(), ledgers, expected, strict=True):
        assert np.array_equal(array, clip.frames)
        assert ledger.stamps == clip.stamps
        assert (ledger.notes, ledger.decoder, ledger.source) == (clip.notes, clip.decoder, clip.source)
        assert ledger.duration_seconds == clip.duration_seconds
    return kept


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    return draw_video(tmp_path_factory.mktemp("video") / "numbers.mp4")


@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize("clips", [1, 3])
def test_several_clips_and_crops(video, clips, crops):
    assert_like_load_clips(video, clips=clips, crops=crops)
    assert_like_load_clips(video, clips=clips, crops=crops, seed=3)


@pytest.mark.parametrize("crops", [1, 3])
def test_frames_that_repeat_within_a_clip_and_among_clips(video, crops):
    kept = assert_like_load_clips(video, clips=5, crops=crops, start_seconds=1.0, end_seconds=1.3)
    assert len(kept.pictures) == 3
    spec = ClipSpec(frames=6, sampling="strided", stride=8, size=(24, 24))
    kept = assert_like_load_clips(video, spec, clips=2, crops=crops)
    assert len(kept.pictures) < 12


def test_a_file_whose_stamps_do_not_hold(tmp_path):
    path = draw_video(tmp_path / "packed.avi", codec="mpeg4", b_frames=2)
    assert_like_load_clips(path, clips=2, crops=3)


def test_pictures_arrays_and_file_objects(tmp_path, video):
    frames = np.stack([numbered_picture(number) for number in range(20)])
    assert_like_load_clips(frames, clips=2, crops=3)
    Image.fromarray(frames[3]).save(tmp_path / "one.png")
    assert_like_load_clips(tmp_path / "one.png", crops=3)
    (tmp_path / "folder").mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "folder" / f"{number}.png")
    assert_like_load_clips(tmp_path / "folder", clips=2)
    assert_like_load_clips(io.BytesIO(video.read_bytes()), clips=2)


def test_under_a_time_limit(video):
    assert_like_load_clips(video, clips=2, crops=3, seed=4, time_limit_seconds=60.0)


def test_another_decoder_begins_again(video, monkeypatch):
    kept_decode = PyavVideo.decode

    def fail(self, timeline, indices):
        yield from list(kept_decode(self, timeline, indices))[:-1]

    monkeypatch.setattr(PyavVideo, "decode", fail)
    assert assert_like_load_clips(video, clips=2).begun == 2


def test_one_decoded_picture_is_held_at_a_time(video, monkeypatch):
    """The decoder is asked for the next frame only when the collector has taken the one before."""
    order, kept_decode = [], PyavVideo.decode

    def watch(self, timeline, indices):
        for number, picture in kept_decode(self, timeline, indices):
            order.append("decoded")
            yield number, picture

    class Watching(Kept):
        def add(self, number, pictures):
            order.append("added")
            super().add(number, pictures)

    monkeypatch.setattr(PyavVideo, "decode", watch)
    collect_frames(video, Wanted(spec=SPEC, clips=2), Watching())
    assert order == ["decoded", "added"] * 8


def test_an_error_leaves_it_unfinished(video):
    kept = Kept()
    with pytest.raises(VideoError, match="past its end"):
        collect_frames(video, Wanted(spec=SPEC, start_seconds=9.0), kept)
    assert not kept.finished


def test_an_augment_is_not_collected(video):
    wanted = Wanted(spec=SPEC, augment=Augment(), generator=np.random.default_rng(0))
    with pytest.raises(AssertionError):
        collect_frames(video, wanted, Kept())


def test_progress_is_shown_inside_one_video(tmp_path):
    video = draw_video(tmp_path / "a.mp4", frames=40)
    seen = []

    def progress(items, total, description):
        count = 0
        for item in items:
            count += 1
            yield item
        seen.append((description, count, total))

    load_clip(video, frames=8, progress=progress)
    assert seen == [(f"reading {video}", 40, 40), (f"frames of {video}", 8, 8)]
    seen.clear()
    spec = ClipSpec(frames=8, size=(16, 16))
    load_clips(video, spec, clips=5, progress=progress)
    assert seen[-1] == (f"clips of {video}", 5, 5)
    seen.clear()
    counted = draw_video(tmp_path / "a.avi", frames=30, codec="mpeg4", b_frames=2)
    load_clips(counted, spec, clips=3, progress=progress)
    assert seen == [(f"counting frames of {counted}", 30, 30), (f"clips of {counted}", 3, 3)]
    seen.clear()
    inspect(video, progress=progress)
    assert seen == [(f"reading {video}", 40, 40)]
