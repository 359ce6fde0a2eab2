import json
import shutil

import pytest

from clipact.models.checkpoint import load_checkpoint
from tests.tiny import tiny_checkpoint
from tests.tiny_transformers import transformers_folder


def test_interpolate_writes_a_model_that_loads(clipact, tmp_path):
    first, second = (tiny_checkpoint(tmp_path / name, seed=seed) for seed, name in enumerate("ab"))
    done = clipact("models", "interpolate", first, second, "--alpha", "0.5", "--out", tmp_path / "out")
    assert (done.code, done.out.strip()) == (0, str(tmp_path / "out"))
    assert load_checkpoint(tmp_path / "out").log_scale.item() == pytest.approx(3.0)


def test_what_is_no_folder_is_wrong_usage(clipact, tmp_path):
    first = tiny_checkpoint(tmp_path / "a")
    done = clipact("models", "interpolate", first, "open_clip:x", "--out", tmp_path / "out")
    assert done.code == 2
    assert "only models in folders can be interpolated" in done.err


def test_list_shows_what_is_here(clipact, tmp_path):
    tiny_checkpoint(tmp_path / "mine")
    done = clipact("models", "list", tmp_path)
    assert done.code == 0
    assert "mini" in done.out
    assert "8 x 288 x 288" in done.out
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
    assert facts["precision"] == "fp32"
    said = clipact("models", "show", folder, "--device", "cpu").out
    for words in (
        "4 frames, segment_centers, 32 x 32",
        "any order",
        "GFLOPs",
        "ms on cpu in fp32",
        "nothing",
        "scale 20.1",
        "has an embedding of its own",
    ):
        assert words in said


def test_show_says_all_of_the_spec_in_80_columns(clipact, tmp_path):
    folder, text = tiny_checkpoint(tmp_path / "mine"), {}
    config = json.loads((folder / "config.json").read_text())
    for sampling in ("strided", "strided_by_number", "fps"):
        config["clip"] |= {"sampling": sampling, "stride": 7, "rate_fps": 2.5}
        config["clip"] |= {"shorter_side_pixels": 37, "crop_rounding": "down"}
        config["license"] = f"research only: {'the photographs belong to their authors ' * 3}\x1b[31m"
        (folder / "config.json").write_text(json.dumps(config))
        text[sampling] = clipact("models", "show", folder, "--device", "cpu").out
        assert max(len(line) for line in text[sampling].splitlines() if str(folder) not in line) <= 80
        assert "\x1b" not in text[sampling]
        for said in ("shorter side to 37 pixels, centre crop rounded down;", "bicubic"):
            assert said in text[sampling]
    assert "strided by 7" in text["strided"]
    assert "strided by 7, by number" in text["strided_by_number"]
    assert "at 2.5 frames a second" in text["fps"]
    clip = json.loads(clipact("models", "show", folder, "--device", "cpu", "--json").out)["clip"]
    assert clip == config["clip"]


def test_show_says_that_sentences_depend_on_the_clip(clipact, tmp_path):
    model = f"transformers:{transformers_folder(tmp_path / 'xclip', 'xclip')}"
    said = clipact("models", "show", model, "--device", "cpu").out
    assert "an embedding that depends on the clip" in said
    assert "xclip (visual) + transformers (text)" in said
    facts = json.loads(clipact("models", "show", model, "--device", "cpu", "--json").out)
    assert facts["text_depends_on_video"] is True
    assert facts["order_free"] is False
    assert facts["towers"] == {"visual": ["xclip"], "text": ["transformers"]}


def test_list_shows_names_as_they_are_and_why_one_is_left_out(clipact, tmp_path):
    tiny_checkpoint(tmp_path / "[red]mine[bold]")
    shutil.copytree(tmp_path / "[red]mine[bold]", tmp_path / "half")
    (tmp_path / "half" / "tokenizer.json").unlink()
    done = clipact("models", "list", tmp_path)
    assert "[red]mine[bold]" in done.out.replace("\n", "").replace(" ", "")
    assert "half is no whole clipact model: it has no tokenizer" in done.err
