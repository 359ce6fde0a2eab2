import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform, image_transform_v2
from PIL import Image

from clipact.clip_spec import ClipSpec
from clipact.models.dual_encoder import normalise_frames
from clipact.video.transforms import fit_crops, fit_frame, resized_size


def _picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _theirs(picture, spec):
    config = PreprocessCfg(
        size=spec.size,
        mean=spec.mean,
        std=spec.std,
        interpolation=spec.interpolation,
        resize_mode=spec.resize,
        fill_color=spec.fill,
    )
    return image_transform_v2(config, is_train=False)(Image.fromarray(picture))


def _ours(picture, spec):
    return normalise_frames(fit_frame(picture, spec)[None], spec)[0]


@pytest.mark.parametrize("shape", [(120, 160), (161, 99), (97, 97), (31, 250), (48, 64), (40, 40), (20, 30)])
@pytest.mark.parametrize("size", [(48, 48), (33, 33), (40, 64), (63, 41)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize", ["shortest", "squash", "longest"])
def test_the_tensor_is_open_clips_bit_for_bit(resize, interpolation, size, shape):
    spec = ClipSpec(size=size, resize=resize, interpolation=interpolation, fill=114)
    picture = _picture(*shape)
    assert torch.equal(_ours(picture, spec), _theirs(picture, spec))


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)) | st.integers(1, 40).map(lambda n: (n, n)),
    resize=st.sampled_from(["squash", "longest"]),
)
def test_any_shape_gives_open_clips_tensor(height, width, size, resize):
    spec = ClipSpec(size=size, resize=resize)
    # A side that rounds to nothing is an error there and one pixel here.
    assume(min(resized_size(height, width, spec)) > 1)
    picture = _picture(height, width)
    assert torch.equal(_ours(picture, spec), _theirs(picture, spec))


def test_other_means_and_the_older_function_agree_too():
    spec = ClipSpec(size=(37, 37), mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.125))
    picture = _picture(70, 90)
    theirs = image_transform(37, is_train=False, mean=spec.mean, std=spec.std)(Image.fromarray(picture))
    assert torch.equal(_ours(picture, spec), theirs)


def test_nearest_repeats_pixels_and_invents_none():
    picture = _picture(8, 8)
    fitted = fit_frame(picture, ClipSpec(size=(16, 16), interpolation="nearest"))
    assert np.array_equal(fitted, picture.repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize("resize", ["shortest", "longest"])
def test_a_very_thin_picture_still_has_a_pixel(resize):
    spec = ClipSpec(size=(16, 16), resize=resize)
    assert min(resized_size(1, 4000, spec)) >= 1
    assert fit_frame(_picture(1, 400), spec).shape == (16, 16, 3)


def test_normalising_a_clip_is_normalising_its_frames_and_leaves_them_alone():
    spec = ClipSpec(size=(20, 20))
    frames = np.stack([_picture(20, 20, seed) for seed in range(3)])
    before = frames.copy()
    frames.flags.writeable = False
    together = normalise_frames(frames, spec)
    assert together.is_contiguous()
    assert torch.equal(together, torch.cat([normalise_frames(frames[i : i + 1], spec) for i in range(3)]))
    assert np.array_equal(frames, before)


@pytest.mark.parametrize("shape", [(120, 160), (161, 99), (97, 97)])
@pytest.mark.parametrize("size", [(48, 48), (40, 64)])
def test_three_crops_are_cut_out_of_one_resized_picture(size, shape):
    spec, picture = ClipSpec(size=size), _picture(*shape)
    height, width = resized_size(*shape, spec)
    whole = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
    start, centre, end = fit_crops(picture, spec, ("start", "centre", "end"))
    assert np.array_equal(start, whole[: size[0], : size[1]])
    assert np.array_equal(end, whole[height - size[0] :, width - size[1] :])
    assert np.array_equal(centre, fit_frame(picture, spec))
