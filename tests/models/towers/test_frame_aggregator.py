import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from clipact.clip_spec import ClipSpec
from clipact.errors import ConfigError
from clipact.models import towers
from clipact.models.towers.efficientnet_lite import EfficientNetLite
from clipact.models.towers.frame_aggregator import AGGREGATORS, FrameAggregator
from clipact.models.towers.tower import Head
from tests.tiny_open_clip import MODELS, timm_inside


@pytest.fixture(scope="module")
def tower() -> FrameAggregator:
    torch.manual_seed(0)
    config = EfficientNetLite.Config(variant="lite0", head=Head.Config(dim=16, hidden=16))
    return FrameAggregator(EfficientNetLite(config)).eval()


def test_the_mean_of_its_frames_raw_features(tower):
    video = torch.randn(2, 3, 3, 64, 64)
    with torch.inference_mode():
        frames = torch.stack([tower.image(video[:, t]) for t in range(3)])
        torch.testing.assert_close(tower(video), frames.mean(0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("training", "given"), [(False, [4, 2]), (True, [6])])
def test_pictures_are_given_as_few_at_a_time_as_a_network_is_quickest_with(tower, training, given):
    """But in training all of them, or the norms would see other batches."""
    video, seen = torch.randn(2, 3, 3, 64, 64), []
    copied = copy.deepcopy(tower).train(training)
    copied.image.register_forward_pre_hook(lambda image, inputs: seen.append(len(inputs[0])))
    with torch.no_grad():
        copied(video)
    assert seen == given


def test_order_free_as_it_says(tower):
    video = torch.randn(1, 4, 3, 64, 64)
    assert tower.order_free
    with torch.inference_mode():
        torch.testing.assert_close(tower(video.flip(1)), tower(video), atol=1e-6, rtol=1e-5)


def test_a_picture_is_a_clip_of_one_frame(tower):
    picture = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(tower(picture[:, None]), tower.image(picture), atol=1e-6, rtol=1e-5)


def test_specification(tower):
    assert tower.spec == tower.image.spec.with_frames(ClipSpec().frames)
    given = ClipSpec(frames=3, size=(64, 64))
    assert FrameAggregator(tower.image, spec=given).spec == given


def test_an_unknown_aggregator_names_the_known():
    with pytest.raises(ConfigError, match="'maen'; did you mean 'mean'"):
        FrameAggregator.Config(aggregator="maen")


SWIN = {"img_size": 56, "embed_dim": 16, "depths": [1, 2], "num_heads": [1, 2], "window_size": 7}
TIMM = {"tower": "timm", "head": {"dim": 16, "blocks": 0}}
IMAGES = {
    "timm's Swin": {**TIMM, "name": "swin_tiny_patch4_window7_224", "settings": SWIN},
    "timm's ConvNeXt": {**TIMM, "name": "test_convnext"},
    "open_clip's ResNet": {"tower": "open_clip", "model": MODELS["resnet"][0]},
    "open_clip's ConvNeXt": {"tower": "open_clip", "model": timm_inside("test_convnext")},
}


@pytest.fixture(scope="module", params=IMAGES)
def image(request):
    torch.manual_seed(0)
    return towers.image_from(IMAGES[request.param]).eval()


@pytest.mark.parametrize("how", [*AGGREGATORS, "shift"])
@torch.inference_mode()
def test_any_image_tower_goes_under_any_aggregator(image, how):
    config = FrameAggregator.Config(shift=0.25) if how == "shift" else FrameAggregator.Config(aggregator=how)
    tower = FrameAggregator(image, config).eval()
    for parameter in tower.aggregator.parameters():  # what begins at zero counts too
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    video = torch.randn(3, 4, 3, *image.spec.size, generator=torch.Generator().manual_seed(1))
    together = tower(video)
    assert together.shape == (3, 16)
    assert together.std(0).max() > 1e-5
    alone = torch.cat([tower(clip[None]) for clip in video])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def shifted():
    torch.manual_seed(0)
    image = towers.image_from({"tower": "open_clip", "model": MODELS["vit"][0]})
    return FrameAggregator(image, FrameAggregator.Config(shift=0.25)).eval()


@torch.inference_mode()
def test_an_image_tower_is_not_changed_by_a_shift_around_it(shifted):
    """What another tower is made of, or a picture alone, is not shifted; and two shifts do not add up."""
    video = torch.randn(2, 4, 3, 32, 32)
    once, pictures = shifted(video), shifted.image(video.flatten(0, 1)).unflatten(0, (2, 4))
    plain = FrameAggregator(shifted.image).eval()(video)
    assert not torch.allclose(plain, once, atol=1e-4)
    torch.testing.assert_close(plain, pictures.mean(1), atol=1e-6, rtol=0)
    again = FrameAggregator(shifted.image, FrameAggregator.Config(shift=0.25)).eval()
    assert torch.equal(again(video), once)


@torch.inference_mode()
def test_a_copy_of_a_shifted_tower_is_a_tower_of_its_own(shifted):
    video = torch.randn(2, 4, 3, 32, 32)
    expected = shifted(video)
    other = copy.deepcopy(shifted)
    shifted(video[:, :3])
    assert torch.equal(other(video), expected)


@torch.inference_mode()
def test_two_threads_may_look_through_one_shifted_tower(shifted):
    """The second clip is seen while the first one is under way."""
    first, second = torch.randn(2, 4, 3, 32, 32), torch.randn(1, 3, 3, 32, 32)
    expected = shifted.per_frame(shifted.image, first), shifted(second)
    found = []

    def look(clip):
        with torch.inference_mode():
            return shifted(clip)

    def see(pictures):
        with ThreadPoolExecutor(1) as pool:
            found.append(pool.submit(look, second).result())
        return shifted.image(pictures)

    assert torch.equal(shifted.per_frame(see, first), expected[0])
    assert torch.equal(found[0], expected[1])


@torch.inference_mode()
def test_a_shift_ends_where_an_image_tower_fails(shifted):
    video = torch.randn(2, 4, 3, 32, 32)
    expected = shifted.image(video[0])
    with pytest.raises(ZeroDivisionError):
        shifted.per_frame(lambda pictures: 1 / 0, video)
    assert torch.equal(shifted.image(video[0]), expected)


def test_an_insert_sees_all_frames_of_a_clip_and_leaves_the_image_tower_as_it_was(tower):
    torch.manual_seed(0)
    config = FrameAggregator.Config(inserts={"blocks.3": "non_local", "last": "space_time"})
    joined, video = FrameAggregator(tower.image, config).eval(), torch.randn(2, 3, 3, 64, 64)
    assert not joined.order_free
    seen = {}
    for place, block in joined.inserts.items():
        block.register_forward_pre_hook(lambda _, maps, place=place: seen.__setitem__(place, maps[0].shape))
    with torch.inference_mode():
        alone = tower(video)
        gated = joined(video)
        assert torch.equal(tower(video), alone)
    assert {place: (*shape[:1], *shape[2:]) for place, shape in seen.items()} == {
        "blocks_3": (2, 3, 8, 8),
        "last": (2, 3, 2, 2),
    }
    assert not torch.allclose(gated, alone)
    identity = FrameAggregator(tower.image, FrameAggregator.Config(inserts={"blocks.3": "non_local"})).eval()
    with torch.inference_mode():
        torch.testing.assert_close(identity(video), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("inserts", "said"),
    [
        ({"block.3": "se"}, "'block.3'; did you mean 'blocks.3'"),
        ({"blocks.3": "see"}, "is 'see'; did you mean 'se'"),
        ({"head": "se"}, "'head', which gives no maps"),
    ],
)
def test_an_insert_that_has_no_place_is_refused(tower, inserts, said):
    with pytest.raises(ConfigError, match=said):
        FrameAggregator(tower.image, FrameAggregator.Config(inserts=inserts))
