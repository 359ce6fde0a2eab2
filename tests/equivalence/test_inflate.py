"""A ViViT started from an image transformer of open_clip's gives a still clip the image's own features."""

import pytest
import torch
from einops import repeat

from clipact.clip_spec import ClipSpec
from clipact.errors import ConfigError
from clipact.models.hub.open_clip import load_open_clip
from clipact.models.hub.open_clip_source import find_open_clip_source
from clipact.models.towers.vivit import inflate
from tests.tiny_open_clip import open_clip_folder

SPEC = ClipSpec(frames=4, size=(32, 32))


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    folder = open_clip_folder(tmp_path_factory.mktemp("models") / "vit", "vit")
    return load_open_clip(find_open_clip_source(f"local-dir:{folder}")).image


@pytest.mark.parametrize("attention", ["joint", "factorised_encoder", "factorised_self"])
@pytest.mark.parametrize(("options", "tubelet"), [("central", 1), ("central", 2), ("averaged", 2)])
def test_a_still_clip_has_the_pictures_features(image, attention, options, tubelet):
    pictures = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tower = inflate(image, {"attention": attention, "tubelet": tubelet}, inflation=options, spec=SPEC)
    still = repeat(pictures, "b c h w -> b t c h w", t=4)
    moving = torch.randn(3, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = image(pictures)
        torch.testing.assert_close(tower(still), expected, atol=1e-5, rtol=0)
        assert not torch.allclose(tower(moving), expected, atol=1e-3)


def test_what_the_image_decides_cannot_be_set(image):
    with pytest.raises(ConfigError, match="width is decided by the image"):
        inflate(image, {"width": 64}, inflation="central", spec=SPEC)
    with pytest.raises(ConfigError, match="clip.size"):
        inflate(image, {}, inflation="central", spec=ClipSpec(frames=4, size=(64, 64)))


def test_other_networks_are_refused(tmp_path):
    folder = open_clip_folder(tmp_path / "coca", "coca")
    pooled = load_open_clip(find_open_clip_source(f"local-dir:{folder}")).image
    with pytest.raises(ConfigError, match="plain vision transformer"):
        inflate(pooled, {}, inflation="central", spec=SPEC)
