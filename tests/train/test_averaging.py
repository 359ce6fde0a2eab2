import json
import shutil

import pytest
import torch

from clipact.errors import ModelError, UsageError
from clipact.models.checkpoint import load_checkpoint, read_config
from clipact.train.averaging import interpolate_models
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    return tiny_checkpoint(folder / "a", seed=0), tiny_checkpoint(folder / "b", seed=1)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_every_weight_lies_on_the_line(pair, tmp_path, alpha):
    ours, theirs = (load_checkpoint(folder).state_dict() for folder in pair)
    mixed = load_checkpoint(interpolate_models(*pair, tmp_path / "out", alpha=alpha)).state_dict()
    for name, value in mixed.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (1 - alpha) * ours[name] + alpha * theirs[name])
        else:
            assert torch.equal(value, ours[name])
    assert read_config(tmp_path / "out").trained_on == ("nothing",)
    assert read_config(tmp_path / "out").notes["blend"]["alpha"] == alpha


def test_a_blend_may_see_in_16_bits_when_both_learnt_in_them(pair, tmp_path):
    one, other = (tiny_checkpoint(tmp_path / name, precision="bf16") for name in ("one", "other"))
    assert read_config(interpolate_models(one, other, tmp_path / "both", alpha=0.5)).precision == "bf16"
    assert read_config(interpolate_models(one, pair[1], tmp_path / "half", alpha=0.5)).precision == "fp32"


def test_what_cannot_be_blended_is_refused(pair, tmp_path):
    with pytest.raises(UsageError, match=r"alpha is 1\.5"):
        interpolate_models(*pair, tmp_path / "out", alpha=1.5)
    with pytest.raises(UsageError, match="is there already"):
        interpolate_models(*pair, tmp_path, alpha=0.5)
    config = (pair[1] / "config.json").read_text()
    try:
        (pair[1] / "config.json").write_text(config.replace('"frames": 4', '"frames": 8'))
        with pytest.raises(ModelError, match="differ in clip of"):
            interpolate_models(*pair, tmp_path / "out", alpha=0.5)
    finally:
        (pair[1] / "config.json").write_text(config)


def test_a_model_of_an_older_version_or_with_other_dropout_is_of_the_same_build(pair, small, tmp_path):
    """As mini is, whose file lacks the settings that came after it, and what is tuned from it."""
    older = tmp_path / "older"
    shutil.copytree(small, older)
    table = json.loads((older / "config.json").read_text())
    for tower in (table["visual"]["image"], table["text"]):
        del tower["head"]["norm_eps"]
        tower["head"]["dropout"] = 0.5
    del table["visual"]["aggregator"], table["clip"]["rate_fps"]
    (older / "config.json").write_text(json.dumps(table))
    mixed = load_checkpoint(interpolate_models(older, small, tmp_path / "out", alpha=0.5)).state_dict()
    assert all(torch.equal(value, mixed[name]) for name, value in load_checkpoint(small).state_dict().items())
    with pytest.raises(ModelError, match="differ in visual and clip of"):
        interpolate_models(pair[0], small, tmp_path / "other", alpha=0.5)
    assert not (tmp_path / "other").exists()
