import json

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


def test_list_shows_what_is_here(clipact, tmp_path):
    tiny_checkpoint(tmp_path / "mine")
    done = clipact("models", "list", tmp_path)
    assert done.code == 0
    assert "mini" in done.out
    assert "8 x 260 x 260" in done.out
    rows = json.loads(clipact("models", "list", tmp_path, "--json").out)
    assert [row["name"] for row in rows] == ["mini", str(tmp_path / "mine")]


def test_list_names_a_broken_model_and_goes_on(clipact, tmp_path):
    tiny_checkpoint(tmp_path / "mine")
    (tmp_path / "mine" / "config.json").write_text("{")
    done = clipact("models", "list", tmp_path)
    assert done.code == 0
    assert "mini" in done.out
    assert "config.json cannot be read" in done.err


def test_show_counts_and_measures(clipact, tmp_path):
    folder = tiny_checkpoint(tmp_path / "mine")
    facts = json.loads(clipact("models", "show", folder, "--frames", "6", "--device", "cpu", "--json").out)
    assert facts["clip"]["frames"] == 6
    assert facts["parameters"]["visual"] > 0
    assert facts["gflops_a_clip"] > 0
    assert facts["milliseconds_a_clip"] > 0
    said = clipact("models", "show", folder, "--device", "cpu").out
    for words in ("4 frames, middles, 32 x 32", "any order", "GFLOPs", "nothing", "scale 20.1"):
        assert words in said
