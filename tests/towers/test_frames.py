import pytest
import torch

from clipact.clip_spec import ClipSpec
from clipact.errors import ConfigError
from clipact.nn.head import Head
from clipact.towers.efficientnet_lite import EfficientNetLite
from clipact.towers.frames import FramesTower


@pytest.fixture(scope="module")
def tower() -> FramesTower:
    torch.manual_seed(0)
    config = EfficientNetLite.Config(variant="lite0", head=Head.Config(dim=16, hidden=16))
    return FramesTower(EfficientNetLite(config)).eval()


def test_the_mean_of_its_frames_raw_features(tower):
    video = torch.randn(2, 3, 3, 64, 64)
    with torch.inference_mode():
        frames = torch.stack([tower.image(video[:, t]) for t in range(3)])
        torch.testing.assert_close(tower(video), frames.mean(0), atol=1e-5, rtol=1e-5)


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
    assert FramesTower(tower.image, spec=given).spec == given


def test_an_unknown_aggregator_names_the_known():
    with pytest.raises(ConfigError, match="'maen'; did you mean 'mean'"):
        FramesTower.Config(aggregator="maen")
