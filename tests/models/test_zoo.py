import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipact.errors import DownloadError, ModelError, UsageError
from clipact.models import zoo
from clipact.models.checkpoint import weights_hash
from clipact.models.download import OFFLINE_WAYS
from clipact.models.hub import open_clip_source
from clipact.models.hub.open_clip_source import READABLE, find_open_clip_source
from clipact.models.towers.text import DeferredText
from tests.hub import Hub, environment
from tests.tiny import tiny_checkpoint
from tests.tiny_open_clip import INCEPTION, MODELS, open_clip_folder

SENTENCES = ["a man drinks", "reading"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("open_clip")
    return {kind: open_clip_folder(root / kind, kind) for kind in ("vit", "siglip")}


@torch.inference_mode()
def embed(model: zoo.Model) -> torch.Tensor:
    encoder = model.encoder
    video = torch.rand(2, 3, 3, *encoder.spec.size, generator=torch.Generator().manual_seed(1))
    return torch.cat([encoder.encode_video(video), encoder.encode_text(SENTENCES)])


class TestFolders:
    def test_a_clipact_folder(self, tiny):
        model = zoo.load_model(str(tiny), device="cpu", defer_text=True)
        assert model.name == str(tiny)
        assert model.key == weights_hash(tiny)
        assert model.trained_on == ("nothing",)
        assert not model.encoder.training
        assert isinstance(model.encoder.text, DeferredText)
        assert not model.encoder.text.loaded
        assert torch.equal(embed(model), embed(zoo.load_model(str(tiny), device="cpu")))

    def test_mini_needs_no_other_library_of_models_to_answer(self, videos, tmp_path):
        script = (
            "import sys; from clipact import ZeroShotClassifier as Z; c = Z.load(sys.argv[1], labels=['a', 'b']);"
            "c.classify(sys.argv[2]); print(*sys.modules)"
        )
        command = [sys.executable, "-c", script, "mini", str(videos / "a.mp4")]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "CLIPACT_CACHE": str(tmp_path)}
        )
        loaded = set(done.stdout.split())
        assert "clipact.models.hub.open_clip" in loaded
        assert not loaded & {"open_clip", "timm", "transformers", "torchvision", "huggingface_hub", "torch._dynamo"}

    def test_what_a_model_was_trained_on_is_known_without_loading_it(self, tiny, folders):
        for name in (str(tiny), "mini", f"open_clip:local-dir:{folders['vit']}"):
            assert zoo.trained_on(name) == zoo.load_model(name, device="cpu", defer_text=True).trained_on
        assert zoo.trained_on("mini") == ("flickr8k train", "sports22 train")

    def test_an_open_clip_folder_says_its_name(self, folders):
        with pytest.raises(ModelError, match=f"call it open_clip:local-dir:{folders['vit']}"):
            zoo.load_model(str(folders["vit"]))

    def test_a_folder_without_a_model(self, tmp_path):
        with pytest.raises(ModelError, match=r"config\.json"):
            zoo.load_model(str(tmp_path))
        with pytest.raises(ModelError, match=r"open_clip_config\.json"):
            zoo.load_model(f"open_clip:local-dir:{tmp_path}")

    def test_an_open_clip_folder_without_weights(self, folders, tmp_path):
        shutil.copy(folders["vit"] / "open_clip_config.json", tmp_path)
        with pytest.raises(ModelError, match="holds no weights"):
            zoo.load_model(f"open_clip:local-dir:{tmp_path}")

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_cfg": {"embed_dim": 3}}'])
    def test_an_open_clip_folder_with_a_strange_configuration(self, tmp_path, text):
        (tmp_path / "open_clip_config.json").write_text(text)
        with pytest.raises(ModelError, match=r"open_clip_config\.json"):
            zoo.load_model(f"open_clip:local-dir:{tmp_path}")


class TestNames:
    @pytest.mark.parametrize(
        ("name", "answers"),
        [
            ("minni", ["did you mean 'mini'?", "open_clip:hf-hub:ORG/NAME"]),
            ("", ["no model is called ''"]),
            ("ViT-B-32/openai", ["did you mean 'open_clip:ViT-B-32/openai'?"]),
            ("no/such/folder", ["no such folder exists"]),
            ("openclip:ViT-B-32/openai", ["did you mean 'open_clip:ViT-B-32/openai'?"]),
            ("open_clip:", ["no model is called 'open_clip:'"]),
            ("open_clip:ViT-B32/openai", ["no architecture 'ViT-B32'", "ViT-B-32", "hf-hub:ORG/NAME"]),
            ("open_clip:laion/CLIP-ViT-B-32", ["no architecture 'laion'", "open_clip:hf-hub:ORG/NAME"]),
            ("open_clip:ViT-B-32/opanai", ["no weights 'opanai'", "did you mean 'openai'?", "laion2b_e16"]),
            ("open_clip:ViT-B-32", ["names no weights", "open_clip:ViT-B-32/TAG", "open_clip:ViT-B-32@FILE"]),
        ],
    )
    def test_a_wrong_name_is_answered_with_right_ones(self, name, answers):
        with pytest.raises(UsageError) as caught:
            zoo.load_model(name)
        for answer in answers:
            assert answer in str(caught.value)

    @pytest.mark.parametrize("file", ["missing.safetensors", "folder", "weights.npz"])
    def test_a_file_that_is_no_file_of_weights(self, tmp_path, file):
        (tmp_path / "folder").mkdir()
        (tmp_path / "weights.npz").touch()
        with pytest.raises(ModelError, match=file):
            zoo.load_model(f"open_clip:ViT-B-32@{tmp_path / file}")


class TestDevices:
    def test_auto_takes_what_is_there(self, monkeypatch):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        assert zoo.pick_device("auto") == torch.device("cpu")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        assert zoo.pick_device("auto") == torch.device("mps")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert zoo.pick_device("auto") == torch.device("cuda")
        assert zoo.pick_device("cuda:1") == torch.device("cuda:1")
        assert zoo.pick_device("cpu") == torch.device("cpu")
        with pytest.raises(UsageError, match=r"no device 'cuda:2'.*cuda:1"):
            zoo.pick_device("cuda:2")

    @pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "CPU"])
    def test_an_absent_device_is_refused_before_anything_is_read(self, name):
        with pytest.raises(UsageError, match="this machine has no device .*cpu"):
            zoo.load_model("no such model", device=name)


class TestPrecision:
    def test_it_is_the_encoders(self, tiny):
        assert zoo.load_model(str(tiny), precision="bf16").encoder.precision == "bf16"
        assert zoo.load_model(str(tiny)).encoder.precision == "fp32"

    @pytest.mark.parametrize(
        ("learnt_in", "cpu_knows_it", "expected"),
        [("bf16", True, "bf16"), ("bf16", False, "fp32"), ("fp32", True, "fp32"), ("fp16", True, "fp32")],
    )
    def test_auto_is_16_bits_for_what_learnt_in_them_where_the_cpu_knows_them(
        self, tmp_path, monkeypatch, learnt_in, cpu_knows_it, expected
    ):
        known = {"amx_bf16": False, "avx512_bf16": cpu_knows_it, "avx512_f": True}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
        folder = str(tiny_checkpoint(tmp_path / "model", precision=learnt_in))
        assert zoo.pick_precision(folder, device="cpu") == expected
        assert zoo.load_model(folder, device="cpu", precision="auto").encoder.precision == expected
        assert zoo.pick_precision(folder, "fp32", device="cpu") == "fp32"
        assert zoo.pick_precision(folder, "bf16", device="cpu") == "bf16"

    def test_auto_is_32_bits_for_another_librarys_model_and_under_an_old_torch(self, tmp_path, monkeypatch):
        assert zoo.pick_precision("open_clip:ViT-B-32/openai") == "fp32"
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
        assert zoo.pick_precision(str(tiny_checkpoint(tmp_path / "model", precision="bf16"))) == "fp32"

    @pytest.mark.parametrize("precision", ["fp16", "half", ""])
    def test_another_is_refused_before_anything_is_read(self, precision):
        with pytest.raises(UsageError, match="precision is .*fp32"):
            zoo.load_model("no such model", precision=precision)


class TestKeys:
    """Two models have one key exactly when their sentences embed alike."""

    def test_it_stays(self, folders, tmp_path):
        again = shutil.copytree(folders["siglip"], tmp_path / "elsewhere")
        assert (
            find_open_clip_source(f"local-dir:{again}").key()
            == find_open_clip_source(f"local-dir:{folders['siglip']}").key()
        )

    @pytest.mark.parametrize("change", ["weights", "configuration", "tokenizer"])
    def test_it_changes(self, folders, tmp_path, change):
        before = find_open_clip_source(f"local-dir:{folders['siglip']}").key()
        other = Path(shutil.copytree(folders["siglip"], tmp_path / "other"))
        if change == "weights":
            weights = load_file(other / "open_clip_model.safetensors")
            weights["text.ln_final.bias"][0] += 1
            save_file(weights, other / "open_clip_model.safetensors")
        elif change == "configuration":
            path = other / "open_clip_config.json"
            path.write_text(path.read_text().replace('"context_length": 64', '"context_length": 32'))
        else:
            path = other / "tokenizer.json"
            path.write_text(path.read_text().replace('"a": 2', '"a": 3'))
        assert find_open_clip_source(f"local-dir:{other}").key() != before


@pytest.fixture
def registered(folders, tmp_path, monkeypatch):
    """The tiny ViT as an architecture that open_clip lists, with two tags that lie nowhere yet."""
    from open_clip import factory, pretrained

    config = {key: value for key, value in MODELS["vit"][0].items() if key != "quick_gelu"}
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny", config)
    tag = {"hf_hub": "tiny/vit/", "mean": (0.5,) * 3, "std": (0.25,) * 3}
    tag |= {"interpolation": "bilinear", "resize_mode": "squash"}
    tags = {
        "openai": {**tag, "quick_gelu": True},
        "laion2b_e1": tag,
        "own": {**tag, "hf_hub": "tiny/vit/own.bin"},
        "alone": {**tag, "hf_hub": "", "url": "https://openaipublic.azureedge.net/tiny.pt"},
    }
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny", tags)
    return folders["vit"] / "open_clip_model.safetensors"


class TestListed:
    def test_weights_from_a_file_are_open_clips(self, registered):
        import open_clip

        model = zoo.load_model(f"open_clip:tiny@{registered}", device="cpu")
        theirs = open_clip.create_model("tiny", pretrained=str(registered)).eval()
        with torch.inference_mode():
            expected = theirs.encode_text(open_clip.get_tokenizer("tiny")(SENTENCES), normalize=True)
        torch.testing.assert_close(embed(model)[2:], expected, rtol=0, atol=1e-6)
        assert model.trained_on == ()

    def test_a_tag_trained_with_quick_gelu_gets_it(self, registered):
        import open_clip

        model = zoo.load_model(f"open_clip:tiny/openai@{registered}", device="cpu")
        theirs = open_clip.create_model("tiny", pretrained=str(registered), force_quick_gelu=True).eval()
        with torch.inference_mode():
            expected = theirs.encode_text(open_clip.get_tokenizer("tiny")(SENTENCES), normalize=True)
        torch.testing.assert_close(embed(model)[2:], expected, rtol=0, atol=1e-6)
        plain = zoo.load_model(f"open_clip:tiny/laion2b_e1@{registered}", device="cpu")
        assert (embed(plain) - embed(model)).abs().max() > 1e-4
        assert plain.key != model.key

    def test_pictures_are_prepared_as_for_the_tags(self, registered, monkeypatch):
        from open_clip import pretrained

        spec = zoo.load_model(f"open_clip:tiny@{registered}", device="cpu").encoder.spec
        assert (spec.mean, spec.std, spec.resize, spec.interpolation) == ((0.5,) * 3, (0.25,) * 3, "squash", "bilinear")
        # They do not agree: open_clip's default, unless one of them is named.
        monkeypatch.setitem(pretrained._PRETRAINED["tiny"], "other", INCEPTION)
        spec = zoo.load_model(f"open_clip:tiny@{registered}", device="cpu").encoder.spec
        assert (spec.mean[0], spec.resize, spec.interpolation) == (0.48145466, "shortest", "bicubic")
        spec = zoo.load_model(f"open_clip:tiny/other@{registered}", device="cpu").encoder.spec
        assert (spec.mean[0], spec.resize, spec.interpolation) == (0.5, "squash", "bicubic")

    def test_a_tag_is_fetched_from_its_repository(self, registered, monkeypatch):
        asked = []

        def hub_file(repository, *names):
            asked.append((repository, *names))
            return registered

        monkeypatch.setattr(open_clip_source, "hub_file", hub_file)
        assert zoo.load_model("open_clip:tiny/openai", device="cpu").trained_on == ("WebImageText",)
        assert zoo.load_model("open_clip:tiny/LAION2B-e1", device="cpu").trained_on == ("LAION-2B",)
        assert zoo.load_model("open_clip:tiny/own", device="cpu").trained_on == ()
        both = ("tiny/vit", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
        card = ("tiny/vit", "README.md")  # for the licence
        assert asked == [card, both, card, both, card, ("tiny/vit", "own.safetensors", "own.bin")]

    def test_a_tag_that_stands_on_no_hub_is_never_fetched(self, registered):
        with pytest.raises(DownloadError, match=r"openaipublic.*open_clip:tiny/alone@FILE"):
            zoo.load_model("open_clip:tiny/alone")

    def test_every_tag_of_open_clip_can_be_named(self, monkeypatch, tmp_path):
        import open_clip

        asked = []
        monkeypatch.setattr(open_clip_source, "hub_file", lambda *wanted: asked.append(wanted) or tmp_path)
        listed = open_clip.list_pretrained()
        for architecture, tag in listed:
            source = find_open_clip_source(f"{architecture}/{tag}")
            settings = open_clip.get_pretrained_cfg(architecture, tag)
            assert source.preprocess["mean"] == settings["mean"]
            assert source.config.get("quick_gelu", False) >= settings.get("quick_gelu", False)
        asked = [words for words in asked if words[1:] != ("README.md",)]
        assert len(asked) == len(listed) > 100
        for repository, *names in asked:
            assert repository.count("/") == 1
            assert names[0].endswith(".safetensors")
            assert all(Path(name).suffix in READABLE for name in names)


def test_text_waits_for_the_first_sentence(folders, tmp_path):
    """With defer_text an open_clip model's tokenizer is not looked for before it is needed; else it is at once."""
    folder = shutil.copytree(folders["siglip"], tmp_path / "siglip")
    for path in Path(folder).glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        zoo.load_model(f"open_clip:local-dir:{folder}", device="cpu")
    model = zoo.load_model(f"open_clip:local-dir:{folder}", device="cpu", defer_text=True)
    with pytest.raises(ModelError, match="tokenizer"):
        model.encoder.encode_text(SENTENCES)


def test_without_a_network_the_answer_names_what_works():
    with pytest.raises(DownloadError) as caught:
        zoo.load_model("open_clip:ViT-B-32/openai", device="cpu")
    assert "HF_HUB_OFFLINE is set" in str(caught.value)
    assert str(caught.value).endswith(OFFLINE_WAYS)


LOAD = """
import sys
import torch
from clipact.models import zoo
from clipact.errors import DownloadError
from tests.models.test_zoo import embed
try:
    zoo.load_model("open_clip:hf-hub:tiny/toothless", device="cpu")
except DownloadError as error:
    print(error)
model = zoo.load_model("open_clip:hf-hub:tiny/siglip", device="cpu")
print(model.key, model.encoder.spec.resize)
torch.save(embed(model), sys.argv[1])
"""


def test_a_repository_on_a_hub_is_the_same_model(folders, tmp_path):
    """Configuration, weights and tokenizer come from the hub: the same embeddings as from the folder."""
    files = {path.name: path.read_bytes() for path in folders["siglip"].iterdir()}
    toothless = {name: content for name, content in files.items() if not name.startswith("tokenizer")}
    config = json.loads(files["open_clip_config.json"])
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "tiny/toothless"
    toothless["open_clip_config.json"] = json.dumps(config).encode()
    with Hub({"tiny/siglip": files, "tiny/toothless": toothless}) as hub:
        done = subprocess.run(
            [sys.executable, "-c", LOAD, tmp_path / "embeddings.pt"],
            env=environment(hub.url, tmp_path / "cache"),
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    missing, facts = done.stdout.splitlines()
    assert "tiny/toothless on the hub has no tokenizer_config.json" in missing
    key, resize = facts.split()
    assert resize == "squash"
    assert len(key) == 64
    here = zoo.load_model(f"open_clip:local-dir:{folders['siglip']}", device="cpu")
    assert torch.equal(torch.load(tmp_path / "embeddings.pt"), embed(here))
    assert hub.fetched().count("open_clip_model.safetensors") == 2  # one a repository
    assert not done.stderr, "no bar where there is no terminal, no warning"
