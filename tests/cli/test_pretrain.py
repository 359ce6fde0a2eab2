import pytest

from clipact.models.checkpoint import load_visual
from tests.video.drawing import draw_video

RECIPE = """
name = "tiny"
trained_on = ["drawn"]

[clip]
frames = 4
size = [16, 16]

[encoder]
width = 24
layers = 1
heads = 2
hidden = 32
patch = 4
attention = "joint"
class_token = "none"
positions = "number_sines"

[decoder]
width = 16
layers = 1
heads = 2
hidden = 16

[data]
sources = [{ files = "seen/*.mp4" }]
workers = 0

[train]
batch = 2
steps = 2

[validation]
sets = [{ name = "kept", files = "kept" }]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in ("seen/0", "seen/1", "kept/2"):
        (folder / name).parent.mkdir(exist_ok=True)
        draw_video(folder / f"{name}.mp4", frames=8)
    (folder / "tiny.toml").write_text(RECIPE)
    return folder


def test_clips_without_words_become_a_tower(clipact, data, tmp_path):
    out = tmp_path / "out"
    done = clipact("pretrain", data / "tiny.toml", "--data", data, "--out", out)
    assert (done.code, done.out.strip()) == (0, str(out / "best"))
    assert "step 2: kept.explained" in done.err
    assert "best at step 2: masked pixels of kept are predicted" in done.err
    assert "init.pretrained.visual" in done.err
    assert load_visual(out / "best").spec.size == (16, 16)
    refused = clipact("classify", data / "kept/2.mp4", "--labels", "drink,read", "--model", out / "best")
    assert refused.code == 1
    assert "a visual tower without words" in refused.err
    listed = clipact("models", "list", out)
    assert "best" not in listed.out
    assert not listed.err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["mask.ratio=0.99"], "masks 16 of 16 places"),
        (["encoder.depth=3"], "unknown key 'encoder.depth'"),
        (["data.cached_augmentations=2"], "unknown key 'data.cached_augmentations'"),
        (['validation.sets=[{ name = "a", files = "seen" }]'], "are learnt from"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_done(clipact, data, tmp_path, changes, said):
    words = [word for change in changes for word in ("--set", change)]
    done = clipact("pretrain", data / "tiny.toml", "--data", data, "--out", tmp_path / "out", *words)
    assert done.code == 2
    assert said in done.err
    assert not (tmp_path / "out").exists()
