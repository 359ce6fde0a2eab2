import json
import os
import shutil
import subprocess
import sys

import pytest

from clipact import zoo
from clipact.errors import UsageError
from clipact.inventory import find_models
from tests.hub import COMMIT
from tests.tiny_open_clip import open_clip_folder
from tests.tiny_transformers import transformers_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny):
    """A folder of models of every kind, and of what is none."""
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny, root / "runs" / "first" / "last")
    open_clip_folder(root / "theirs", "vit")
    transformers_folder(root / "other", "clip")
    (root / "empty").mkdir()
    shutil.copytree(tiny, root / ".hidden" / "last")
    return root


def test_each_is_named_as_the_zoo_takes_it(place):
    found, wrong = find_models([place])
    names = [kept.name for kept in found]
    last, other, theirs = (place / name for name in ("runs/first/last", "other", "theirs"))
    assert names == ["mini", f"transformers:{other}", str(last), f"open_clip:local-dir:{theirs}"]
    assert not wrong
    for name in names[1:]:
        assert zoo.load(name, device="cpu", defer_text=True).name == name


def test_what_a_model_is_stands_beside_its_name(place):
    found = {kept.name: kept for kept in find_models([place])[0]}
    mini, mine = found["mini"], found[str(place / "runs/first/last")]
    assert (mini.input, mini.trained_on) == ("8 x 260 x 260", ("flickr8k train",))
    assert 50 < mini.megabytes < 60
    assert "research only" in mini.license
    assert (mine.input, mine.trained_on, mine.license) == ("4 x 32 x 32", ("nothing",), "not said")


def test_one_folder_found_twice_is_listed_once(place):
    assert find_models([place, place / "runs"])[0] == find_models([place])[0]


def test_a_broken_one_is_named_and_the_others_listed(place, tmp_path):
    shutil.copytree(place / "runs", tmp_path / "runs")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"format": 99}')
    (tmp_path / "broken" / "model.safetensors").touch()
    found, wrong = find_models([tmp_path])
    assert len(found) == 2
    assert len(wrong) == 1
    assert "format is 99" in wrong[0]


def test_a_folder_that_is_not_there_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="is no folder"):
        find_models([tmp_path / "nowhere"])


def test_the_hub_s_cache_is_looked_into_and_nothing_else_is_asked(place, tmp_path):
    """In a process of its own: huggingface_hub reads its environment at import."""
    for name, source in {"org/theirs": "theirs", "openai/clip-vit-tiny": "other"}.items():
        folder = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        shutil.copytree(place / source, folder / "snapshots" / COMMIT)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(COMMIT)
    weights = tmp_path / "hub" / "models--timm--vit_base_patch32_clip_224.openai" / "snapshots" / COMMIT
    weights.mkdir(parents=True)
    shutil.copy(place / "theirs" / "open_clip_model.safetensors", weights)
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-m", "clipact.cli.app", "models", "list", str(tmp_path / "empty"), "--json"]
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert [(row["name"], row["trained_on"]) for row in json.loads(done.stdout)[1:]] == [
        ("transformers:openai/clip-vit-tiny", ["WebImageText"]),
        ("open_clip:hf-hub:org/theirs", []),
        ("open_clip:ViT-B-32/openai", ["WebImageText"]),
    ]
