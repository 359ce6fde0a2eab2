"""What a clip may be for the towers that see space and time at once."""

import numpy as np
import pytest
import torch
from einops import rearrange

from clipact.clip_spec import ClipSpec
from clipact.errors import ConfigError, ModelError
from clipact.models.dual_encoder import normalise_frames
from clipact.models.towers.swin3d import KINETICS, Swin3D
from clipact.models.towers.vivit import ViViT
from clipact.video.transforms import fit_frame

SPEC = ClipSpec(frames=4, size=(32, 32))
SMALL = ViViT.Config(width=32, layers=2, heads=2, hidden=64)


def test_vivit_takes_any_length_that_its_tubelets_divide():
    torch.manual_seed(0)
    tower = ViViT(SMALL, spec=SPEC).eval()
    for frames in (2, 4, 6, 16):
        assert tower(torch.randn(1, frames, 3, 32, 32)).shape == (1, tower.dim)
    with pytest.raises(ModelError, match="3 frames.*2 at a time"):
        tower(torch.randn(1, 3, 3, 32, 32))
    with pytest.raises(ModelError, match=r"\(16, 32\).*\(32, 32\)"):
        tower(torch.randn(1, 4, 3, 16, 32))


def test_vivit_with_sines_sees_which_step_and_which_place():
    """One bright token: in the second place of the first step, or in the first place of the second step."""
    torch.manual_seed(0)
    config = ViViT.Config(
        width=32, layers=2, heads=2, hidden=64, tubelet=1, attention="joint", class_token="clip", positions="sines"
    )
    tower = ViViT(config, spec=SPEC).eval()
    seen = []
    for step, column in ((0, 1), (1, 0)):
        video = torch.zeros(1, 4, 3, 32, 32)
        video[:, step, :, :16, 16 * column : 16 * (column + 1)] = 3.0
        seen.append(tower(video))
    assert not torch.allclose(*seen, atol=1e-3)


def test_vivit_refuses_what_cannot_be_built():
    with pytest.raises(ModelError, match="multiples"):
        ViViT(SMALL, spec=ClipSpec(frames=5, size=(32, 32)))
    with pytest.raises(ConfigError, match="patches of 16"):
        ViViT(SMALL, spec=ClipSpec(frames=4, size=(40, 32)))
    with pytest.raises(ConfigError, match="only 'joint'"):
        ViViT.Config(class_token="clip")
    with pytest.raises(ConfigError, match="divide the width"):
        ViViT.Config(width=33)
    with pytest.raises(ConfigError, match="at least 6"):
        ViViT.Config(width=4, heads=2, positions="sines")


def test_swin_refuses_windows_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"\[32, 16, 8, 4\].*multiples of 224"):
        Swin3D(Swin3D.Config(), spec=ClipSpec(frames=8, size=(128, 128)))
    with pytest.raises(ModelError, match="7 frames.*even numbers up to 16"):
        Swin3D(Swin3D.Config(), spec=ClipSpec(frames=7, size=(224, 224)))
    tower = Swin3D(Swin3D.Config(window=(2, 1, 1)), spec=SPEC).eval()
    assert tower(torch.randn(1, 8, 3, 32, 32)).shape == (1, tower.dim)
    with pytest.raises(ModelError, match="6 frames.*up to 4, and multiples"):
        tower(torch.randn(1, 6, 3, 32, 32))


def test_swin_in_sizes_of_ones_own():
    torch.manual_seed(0)
    own = {"width": 8, "depths": (1, 1), "heads": (1, 2), "window": (2, 4, 4)}
    tower = Swin3D(Swin3D.Config(**own), spec=SPEC).eval()
    assert tower.head.project.in_features == 16
    assert tower(torch.randn(1, 4, 3, 32, 32)).shape == (1, tower.dim)
    for wrong in ({"heads": ()}, {"depths": (1, 1, 1)}, {"depths": (0, 1)}, {"width": None}):
        with pytest.raises(ConfigError, match="all three are given"):
            Swin3D.Config(**own | wrong)
    with pytest.raises(ConfigError, match="heads divide the width"):
        Swin3D.Config(**own | {"heads": (3, 2)})
    with pytest.raises(ConfigError, match=r"\[8, 4\].*windows of 3 take multiples of 24"):
        Swin3D(Swin3D.Config(**own | {"window": (2, 3, 3)}), spec=SPEC)


@pytest.mark.parametrize("size", [(256, 340), (341, 256), (120, 161)])
def test_clips_for_the_published_weights_are_torchvisions(size):
    from torchvision.models.video import Swin3D_B_Weights, Swin3D_S_Weights, Swin3D_T_Weights

    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    ours = normalise_frames(np.stack([fit_frame(frame, KINETICS) for frame in frames]), KINETICS)
    step = 1.01 / 255 / min(KINETICS.std)  # Pillow and torch may round a resized byte to neighbours
    for weights in (Swin3D_T_Weights, Swin3D_S_Weights, Swin3D_B_Weights):
        theirs = weights.DEFAULT.transforms()(rearrange(torch.from_numpy(frames), "t h w c -> t c h w"))
        atol = step if min(size) != 256 else 1e-6
        torch.testing.assert_close(ours, rearrange(theirs, "c t h w -> t c h w"), rtol=0, atol=atol)
    assert "frame_rate=15" in Swin3D_T_Weights.DEFAULT.meta["_docs"]
    assert "clip_len=32" in Swin3D_T_Weights.DEFAULT.meta["_docs"]
