"""Our tower around Video Swin against torchvision's own model with the same weights."""

import torch
from torchvision.models.video import swin3d_t

from clipact.clip_spec import ClipSpec
from clipact.nn.head import Head
from clipact.towers.swin3d import Swin3D
from clipact.training.start import _fill


def test_the_tower_equals_torchvisions_model_whose_weights_it_takes(tmp_path):
    torch.manual_seed(0)
    theirs = swin3d_t(num_classes=5).eval()
    tower = Swin3D(Swin3D.Config(head=Head.Config(dim=768, blocks=0)), spec=ClipSpec(frames=4, size=(224, 224))).eval()
    torch.save(theirs.state_dict(), tmp_path / "swin3d_t.pth")
    _fill(tower, str(tmp_path / "swin3d_t.pth"))
    video = torch.randn(1, 4, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = theirs(video.transpose(1, 2))
        found = theirs.head(tower.features(video))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
