"""transformers' models by name: a folder, and a repository on a hub on 127.0.0.1."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clipact.errors import ModelError
from clipact.models import zoo
from clipact.models.hub.transformers_source import find_transformers_source
from tests.hub import Hub, environment
from tests.models.test_zoo import embed
from tests.tiny_transformers import transformers_folder

LOAD = """
import sys
import huggingface_hub.constants
import torch
from clipact.models import zoo
from clipact.errors import DownloadError
from tests.models.test_zoo import embed

def load(name):
    try:
        return zoo.load_model(name, device="cpu")
    except DownloadError as error:
        print(error)

load("transformers:tiny/missing")
first = load("transformers:tiny/clip")
huggingface_hub.constants.HF_HUB_OFFLINE = True
again = load("transformers:tiny/clip")
load("transformers:tiny/missing")
assert torch.equal(embed(first), embed(again))
assert first.key == again.key
print(first.key)
torch.save(embed(first), sys.argv[1])
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return transformers_folder(tmp_path_factory.mktemp("zoo") / "clip", "clip", cut=True)


def test_a_repository_is_fetched_once_and_is_the_folders_model(clip, tmp_path):
    files = {path.name: path.read_bytes() for path in clip.iterdir()}
    with Hub({"tiny/clip": files | {"modeling_clip.py": b"raise SystemExit", "README.md": b""}}) as hub:
        done = subprocess.run(
            [sys.executable, "-c", LOAD, tmp_path / "embeddings.pt"],
            env=environment(hub.url, tmp_path / "cache"),
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    absent, offline, key = done.stdout.splitlines()
    assert f"{hub.url} shows no tiny/missing" in absent
    assert "HF_HUB_OFFLINE is set and tiny/missing is not in the cache" in offline
    assert sorted(hub.fetched()) == sorted(files), "each file once, and no code"
    assert len([name for name in files if name.endswith(".safetensors")]) > 1
    here = zoo.load_model(f"transformers:{clip}", device="cpu")
    assert torch.equal(torch.load(tmp_path / "embeddings.pt"), embed(here))
    assert key == here.key
    assert not done.stderr, "no bar where there is no terminal, no warning"


def test_a_key_changes_with_anything_that_counts(clip, tmp_path):
    before = find_transformers_source(str(clip)).key()
    for number, name in enumerate(["config.json", "preprocessor_config.json", "tokenizer.json", "weights"]):
        other = Path(shutil.copytree(clip, tmp_path / str(number)))
        assert find_transformers_source(str(other)).key() == before
        if name == "weights":
            path = sorted(other.glob("*.safetensors"))[0]
            content = path.read_bytes()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        else:
            text = (other / name).read_text()
            (other / name).write_text(text.replace("35", "34") if "35" in text else text.replace("32", "33"))
        assert find_transformers_source(str(other)).key() != before


@pytest.mark.parametrize("name", ["/no/where", "./nowhere", "~/nowhere", "a/b/c"])
def test_a_folder_that_is_not_there_is_said_to_be_none(name):
    with pytest.raises(ModelError, match=f"there is no folder {name}"):
        zoo.load_model(f"transformers:{name}", device="cpu")


def test_a_folder_of_transformers_says_its_name(clip):
    with pytest.raises(ModelError, match=f"call it transformers:{clip}"):
        zoo.load_model(str(clip))


@pytest.mark.parametrize(
    ("repository", "data"),
    [
        ("openai/clip-vit-base-patch32", ("WebImageText",)),
        ("microsoft/xclip-base-patch16-hmdb-2-shot", ("WebImageText", "Kinetics-400", "HMDB51")),
        ("tiny/clip", ()),
    ],
)
def test_known_repositories_say_what_they_were_trained_on(repository, data, clip, monkeypatch):
    monkeypatch.setattr("clipact.models.hub.transformers_source.hub_folder", lambda *words, **options: clip)
    monkeypatch.setattr("clipact.models.hub.transformers_source.hub_file", lambda repository, name: clip / name)
    assert find_transformers_source(repository).trained_on == data


def test_a_list_of_weights_stays_in_its_folder(clip, tmp_path):
    other = Path(shutil.copytree(clip, tmp_path / "other"))
    index = other / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"logit_scale": "../clip/model.safetensors"}}')
    with pytest.raises(ModelError, match="lists no safetensors files beside it"):
        find_transformers_source(str(other)).key()
