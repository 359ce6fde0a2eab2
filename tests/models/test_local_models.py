import json
import os
import shutil
import subprocess
import sys

import pytest

from clipact.errors import ModelError, UsageError
from clipact.models import zoo
from clipact.models.download import card_license
from clipact.models.local_models import find_models
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
        assert zoo.load_model(name, device="cpu", defer_text=True).name == name


def test_what_a_model_is_stands_beside_its_name(place):
    found = {kept.name: kept for kept in find_models([place])[0]}
    mini, mine = found["mini"], found[str(place / "runs/first/last")]
    assert (mini.input, mini.trained_on) == ("8 x 288 x 288", ("flickr8k train", "sports22 train"))
    assert 50 < mini.megabytes < 60
    assert "research only" in mini.license
    assert (mine.input, mine.trained_on, mine.license) == ("4 x 32 x 32", ("nothing",), "")


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


def _changed(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def _cut(file):
    os.truncate(file, file.stat().st_size - 8)


# What is done to a folder, and what is said of it.
REFUSED = {
    "an unknown tower": ("tiny", lambda folder: _changed(folder, visual={"tower": "vivid"}), "did you mean 'vivit'"),
    "a setting that is none": (
        "tiny", lambda folder: _changed(folder, text={"tower": "bert", "widht": 16}), "did you mean 'width'"
    ),
    "no tokenizer": ("tiny", lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
    "weights cut short": ("tiny", lambda folder: _cut(folder / "model.safetensors"), "model.safetensors is damaged"),
    "another family": ("clip", lambda folder: _changed(folder, model_type="blip"), "is a 'blip'"),
    "one tower alone": ("clip", lambda folder: _changed(folder, model_type="videomae"), "init.pretrained.visual"),
    "no preprocessing": (
        "clip", lambda folder: (folder / "preprocessor_config.json").unlink(), "does not say how pictures are prepared"
    ),
    "theirs, cut short": ("clip", lambda folder: _cut(folder / "model.safetensors"), "model.safetensors is damaged"),
    "open_clip's without towers": (
        "vit", lambda folder: (folder / "open_clip_config.json").write_text('{"model_cfg": {"vision_cfg": null}}'),
        "describes no open_clip model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_zoo_refuses_is_left_out_with_why(place, tmp_path, case):
    kind, spoil, why = REFUSED[case]
    source = {"tiny": place / "runs/first/last", "clip": place / "other", "vit": place / "theirs"}[kind]
    spoil(folder := shutil.copytree(source, tmp_path / "spoilt"))
    found, wrong = find_models([tmp_path])
    assert [kept.name for kept in found] == ["mini"]
    assert len(wrong) == 1
    assert str(folder) in wrong[0]
    assert why in wrong[0]
    name = {"tiny": "", "clip": "transformers:", "vit": "open_clip:local-dir:"}[kind] + str(folder)
    with pytest.raises(ModelError):
        zoo.load_model(name, device="cpu").encoder.encode_text(["a man drinks"])


def test_a_model_of_language_is_nobody_s_business(place, tmp_path):
    folder = shutil.copytree(place / "other", tmp_path / "words")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    assert find_models([tmp_path])[1] == []


def test_the_input_is_the_one_that_the_zoo_prepares(tmp_path):
    transformers_folder(tmp_path / "xclip", "xclip")
    transformers_folder(tmp_path / "siglip2", "siglip2")
    found, wrong = find_models([tmp_path])
    assert not wrong
    said = {kept.path.name: kept.input for kept in found[1:]}
    assert said == {"siglip2": "8 x 32 x 32", "xclip": "4 x 32 x 32"}
    for kept in found[1:]:
        spec = zoo.load_model(kept.name, device="cpu").encoder.spec
        assert kept.input == " x ".join(map(str, (spec.frames, *spec.size)))


def test_a_table_without_a_vision_config_says_the_default(place, tmp_path):
    _changed(shutil.copytree(place / "other", tmp_path / "null"), vision_config=None)
    assert [kept.input for kept in find_models([tmp_path])[0]][1:] == ["8 x 32 x 32"]


def test_weights_in_many_files_are_summed_and_a_missing_one_is_named(tmp_path):
    folder = transformers_folder(tmp_path / "cut", "clip", cut=True)
    parts = sorted(folder.glob("*.safetensors"))
    assert len(parts) > 1
    (folder / "training_args.bin").write_bytes(bytes(10**6))  # no weights
    whole = [*parts, folder / "model.safetensors.index.json"]
    assert find_models([tmp_path])[0][1].megabytes == pytest.approx(sum(one.stat().st_size for one in whole) / 1e6)
    parts[1].unlink()
    found, wrong = find_models([tmp_path])
    assert len(found) == 1
    assert f"{parts[1].name}, which model.safetensors.index.json lists, is missing" in wrong[0]
    with pytest.raises(ModelError, match="is missing"):
        zoo.load_model(f"transformers:{folder}", device="cpu")


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("---\nlicense: apache-2.0\ntags:\n- vision\n---\n# A model\n", "apache-2.0"),
        ("\ufeff---\r\nlicense: 'mit'\r\n---\r\n", "mit"),
        ("---\nlicense:\n- mit\n- cc-by-4.0\n---\n", "mit, cc-by-4.0"),
        ("---\nlicense: other\nlicense_name: apple-ascl\n---\n", "apple-ascl"),
        ("---\nlicense: other\n---\n", "other"),
        ('---\nlicense: "a\\x1b[31mb"\n---\n', "a[31mb"),
        ("---\nlicense: [\n---\n", ""),
        ("---\n- a list\n---\n", ""),
        ("# A model\n\nlicense: mit\n", ""),
        (None, ""),
    ],
)
def test_a_card_names_the_licence_of_a_repository(card, said, tmp_path):
    if card is not None:
        (tmp_path / "README.md").write_text(card, encoding="utf-8", newline="")
    assert card_license(tmp_path) == said


def test_the_licence_stands_in_the_list_and_in_the_model(place):
    card = "---\nlicense: apache-2.0\n---\n"
    for name, path in {"transformers": "other", "open_clip:local-dir": "theirs"}.items():
        (place / path / "README.md").write_text(card)
        found = {kept.name: kept.license for kept in find_models([place])[0]}
        model = f"{name}:{place / path}"
        assert found[model] == zoo.load_model(model, device="cpu").license == "apache-2.0"
        (place / path / "README.md").unlink()


def test_a_folder_that_is_not_there_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="is no folder"):
        find_models([tmp_path / "nowhere"])


def test_the_hub_s_cache_is_looked_into_and_nothing_else_is_asked(place, tmp_path):
    """In a process of its own: huggingface_hub reads its environment at import."""
    cache = {"org/theirs": "theirs", "openai/clip-vit-tiny": "other", "org/words": "other"}
    for name, source in cache.items():
        folder = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        shutil.copytree(place / source, folder / "snapshots" / COMMIT)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(COMMIT)
    _changed(folder / "snapshots" / COMMIT, model_type="blip")
    weights = tmp_path / "hub" / "models--timm--vit_base_patch32_clip_224.openai" / "snapshots" / COMMIT
    weights.mkdir(parents=True)
    shutil.copy(place / "theirs" / "open_clip_model.safetensors", weights)
    (weights / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-m", "clipact.cli.app", "models", "list", str(tmp_path / "empty"), "--json"]
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    keys = ("name", "trained_on", "input", "license")
    assert [tuple(row[key] for key in keys) for row in json.loads(done.stdout)[1:]] == [
        ("transformers:openai/clip-vit-tiny", ["WebImageText"], "8 x 32 x 32", ""),
        ("open_clip:hf-hub:org/theirs", [], "8 x 32 x 32", ""),
        ("open_clip:ViT-B-32/openai", ["WebImageText"], "8 x 224 x 224", "mit"),
    ]
    assert "transformers:org/words is a 'blip'" in done.stderr
