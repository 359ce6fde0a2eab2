import numpy as np
import pytest
import torchvision.transforms.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clipact.clip_spec import ClipSpec
from clipact.errors import ConfigError, UsageError
from clipact.video.augment import Augment, DrawnAugment, box_between, draw_box, turn_hue
from clipact.video.load import load_clip, load_clips
from clipact.video.transforms import fit_frame

from .drawing import draw_video

SPEC = ClipSpec(frames=4, size=(24, 24))
STRONG = Augment(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2, grey=0.2)


@pytest.fixture(scope="module")
def frame():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def _drawn(augment, seed):
    return DrawnAugment(augment, SPEC, generator=np.random.default_rng(seed))


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    low=st.floats(0.05, 1.0),
    seed=st.integers(0, 1000),
)
def test_a_box_lies_inside_and_keeps_the_area_and_shape_asked_for(height, width, low, seed):
    augment = Augment(scale=(low, 1.0), ratio=(0.5, 2.0))
    top, left, h, w = draw_box(height, width, augment, generator=np.random.default_rng(seed))
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    assert h >= 1
    assert w >= 1
    if min(height, width) >= 20 and 0.5 <= width / height <= 2:
        assert h * w >= 0.9 * low * height * width - height - width
        assert 0.45 <= w / h <= 2.2


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 1000),
)
def test_a_drifting_box_stays_inside_and_ends_at_both_draws(height, width, share, seed):
    generator = np.random.default_rng(seed)
    one, other = (draw_box(height, width, Augment(), generator=generator) for _ in range(2))
    assert box_between(one, other, share=0.0) == one
    assert box_between(one, other, share=1.0) == other
    top, left, h, w = box_between(one, other, share=share)
    assert 0 <= top < top + h <= height
    assert 0 <= left < left + w <= width
    assert min(one[3], other[3]) - 1 <= w <= max(one[3], other[3]) + 1


@pytest.fixture(scope="module")
def ramp(tmp_path_factory):
    """A picture that is redder to the right and greener to the bottom, one step a pixel."""
    path = tmp_path_factory.mktemp("ramp") / "ramp.png"
    down, right = np.mgrid[:150, :180].astype(np.uint8)
    Image.fromarray(np.stack([right, down, np.zeros_like(right)], axis=2)).save(path)
    return path


def test_a_picture_becomes_a_clip_whose_view_moves_evenly(ramp):
    def clip(seed, **more):
        augment = Augment(scale=(0.1, 0.3), brightness=0.3, **more)
        spec = ClipSpec(frames=7, size=(24, 24))
        return load_clip(ramp, spec=spec, generator=np.random.default_rng(seed), augment=augment).frames.astype(int)

    moved = 0
    for seed in range(12):
        still, drifting, half = clip(seed), clip(seed, drift=1.0), clip(seed, drift=0.5)
        assert all(np.array_equal(still[0], frame) for frame in still)
        assert np.array_equal(drifting[0], still[0])
        assert np.array_equal(half[-1], drifting[3])
        centres = drifting[..., :2].mean((1, 2))
        steps = np.diff(centres, axis=0)
        assert np.abs(steps - steps.mean(0)).max() < 2, "edges lie on whole pixels"
        moved += np.abs(centres[-1] - centres[0]).max() > 10
    assert moved > 6


def test_a_camera_may_move_in_a_real_clip(tmp_path):
    path = draw_video(tmp_path / "a.mp4", frames=3)
    plain = load_clip(path, frames=3).frames
    augment = Augment(scale=(0.2, 0.4), drift=1.0)
    clip = load_clip(path, spec=ClipSpec(frames=6, size=(24, 24)), generator=np.random.default_rng(4), augment=augment)
    generator = np.random.default_rng(4)
    generator.integers(3, size=6)  # which frames are shown is drawn first
    drawn = DrawnAugment(augment, SPEC, generator=generator)
    expected = [drawn(plain[stamp.index], moment=place / 5) for place, stamp in enumerate(clip.stamps)]
    assert np.array_equal(clip.frames, np.stack(expected))


def test_the_frames_of_a_clip_are_changed_alike(frame):
    for seed in range(20):
        drawn = _drawn(STRONG, seed)
        assert np.array_equal(drawn(frame), drawn(frame))
        assert np.array_equal(drawn(frame), _drawn(STRONG, seed)(frame))
    assert len({_drawn(STRONG, seed)(frame).tobytes() for seed in range(20)}) == 20


def test_the_weakest_augment_only_resizes(frame):
    still = Augment(scale=(1.0, 1.0), ratio=(80 / 60, 80 / 60), flip=0.0)
    squashed = fit_frame(frame, ClipSpec(size=(24, 24), resize="squash"))
    assert np.array_equal(_drawn(still, 3)(frame), squashed)
    mirrored = Augment(scale=(1.0, 1.0), ratio=(80 / 60, 80 / 60), flip=1.0)
    assert np.array_equal(_drawn(mirrored, 3)(frame), squashed[:, ::-1])


def test_what_is_learnt_from_may_have_another_size_than_the_clip(frame, tmp_path):
    still = {"scale": (1.0, 1.0), "ratio": (80 / 60, 80 / 60), "flip": 0.0}
    squashed = fit_frame(frame, ClipSpec(size=(16, 20), resize="squash"))
    assert np.array_equal(_drawn(Augment(**still, size=(16, 20)), 3)(frame), squashed)
    path, generator = draw_video(tmp_path / "a.mp4", frames=16), np.random.default_rng(1)
    changed = load_clip(path, spec=SPEC, augment=Augment(size=(16, 20)), generator=generator)
    assert changed.frames.shape == (4, 16, 20, 3)
    assert load_clip(path, spec=SPEC).frames.shape == (4, 24, 24, 3)


def test_half_of_the_clips_are_mirrored():
    mirrored = [_drawn(Augment(), seed).mirrored for seed in range(400)]
    assert 150 < sum(mirrored) < 250


def test_colours_are_torchvisions(frame):
    still = {"scale": (1.0, 1.0), "ratio": (80 / 60, 80 / 60), "flip": 0.0}
    plain = Image.fromarray(_drawn(Augment(**still), 5)(frame))
    for name, adjust in [
        ("brightness", F.adjust_brightness),
        ("contrast", F.adjust_contrast),
        ("saturation", F.adjust_saturation),
        ("hue", F.adjust_hue),
    ]:
        drawn = _drawn(Augment(**still, **{name: 0.5}), 5)
        assert np.array_equal(drawn(frame), np.asarray(adjust(plain, getattr(drawn, name)))), name


@pytest.mark.parametrize("part", [-0.5, -0.1, 0.0, 0.25, 0.5])
def test_hue_is_torchvisions(frame, part):
    picture = Image.fromarray(frame)
    assert np.array_equal(np.asarray(turn_hue(picture, part)), np.asarray(F.adjust_hue(picture, part)))


def test_three_crops_are_the_ends_and_the_middle_of_the_longer_side(frame):
    spec = ClipSpec(size=(60, 60))
    start, centre, end = (fit_frame(frame, spec, keep=keep) for keep in ("start", "centre", "end"))
    assert np.array_equal(start, frame[:, :60])
    assert np.array_equal(centre, frame[:, 10:70])
    assert np.array_equal(end, frame[:, 20:])
    tall = np.ascontiguousarray(frame.transpose(1, 0, 2))
    assert np.array_equal(fit_frame(tall, spec, keep="end"), tall[20:])


def test_crops_and_clips_of_a_video(tmp_path):
    path = draw_video(tmp_path / "a.mp4", frames=16)
    native = load_clip(path, frames=16)
    views = load_clips(path, SPEC, clips=2, crops=3)
    assert len(views) == 6
    for i, view in enumerate(views):
        keep = ("start", "centre", "end")[i % 3]
        for stamp, shown in zip(view.stamps, view.frames, strict=True):
            assert np.array_equal(shown, fit_frame(native.frames[stamp.index], SPEC, keep=keep))
    assert views[0].stamps == views[2].stamps != views[3].stamps
    with pytest.raises(UsageError, match="1 .* or 3"):
        load_clips(path, SPEC, crops=2)


def test_a_video_is_augmented_by_its_generator(tmp_path):
    path = draw_video(tmp_path / "a.mp4", frames=16)
    one, two, other = (
        load_clip(path, spec=SPEC, augment=STRONG, generator=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(one.frames, two.frames)
    assert one.frames.shape == other.frames.shape == (4, 24, 24, 3)
    assert not np.array_equal(one.frames, other.frames)
    with pytest.raises(UsageError, match="generator"):
        load_clip(path, spec=SPEC, augment=STRONG)


@pytest.mark.parametrize(
    "wrong",
    [{"flip": 1.5}, {"drift": 1.5}, {"hue": 0.6}, {"scale": (0.0, 1.0)}, {"ratio": (2.0, 1.0)}, {"size": (0, 224)}],
)
def test_an_impossible_augment(wrong):
    with pytest.raises(ConfigError):
        Augment(**wrong)
