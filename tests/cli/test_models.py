import pytest

from clipact.checkpoint import load
from tests.tiny import tiny_checkpoint


def test_blend_writes_a_model_that_loads(clipact, tmp_path):
    first, second = (tiny_checkpoint(tmp_path / name, seed=seed) for seed, name in enumerate("ab"))
    done = clipact("models", "blend", first, second, "--alpha", "0.5", "--out", tmp_path / "out")
    assert (done.code, done.out.strip()) == (0, str(tmp_path / "out"))
    assert load(tmp_path / "out").log_scale.item() == pytest.approx(3.0)


def test_what_is_no_folder_is_wrong_usage(clipact, tmp_path):
    first = tiny_checkpoint(tmp_path / "a")
    done = clipact("models", "blend", first, "open_clip:x", "--out", tmp_path / "out")
    assert done.code == 2
    assert "only models in folders can be blended" in done.err
