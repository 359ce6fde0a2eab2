import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipact.atomic_write import tidy
from clipact.errors import ModelError
from clipact.models.checkpoint import load_checkpoint, read_config, weights_hash
from clipact.models.save_checkpoint import save_model
from tests.tiny import tiny_checkpoint

VIDEO = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
SENTENCES = ["a man drinks", "reading"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def _embed(encoder):
    with torch.inference_mode():
        return encoder.encode_video(VIDEO), encoder.encode_text(SENTENCES), encoder.scale


def test_reloaded_equals_saved(folder, tmp_path):
    first = load_checkpoint(folder)
    again = load_checkpoint(save_model(first, tmp_path / "again", name="again"))
    for a, b in zip(_embed(first), _embed(again), strict=True):
        assert torch.equal(a, b)
    assert again.spec == first.spec
    assert read_config(folder).trained_on == ("nothing",)


def test_a_saved_model_is_readable_for_everyone(folder):
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}
    assert folder.stat().st_mode & 0o777 == 0o755


def test_deferred_text_is_read_only_when_a_sentence_comes(folder):
    plain, deferred = load_checkpoint(folder), load_checkpoint(folder, defer_text=True)
    assert not deferred.text.loaded
    deferred.encode_video(VIDEO)
    assert not deferred.text.loaded
    assert torch.equal(deferred.encode_text(SENTENCES), plain.encode_text(SENTENCES))
    assert deferred.text.loaded


def test_half_precision_on_disk_stays_close_and_loads_as_fp32(folder, tmp_path):
    half = save_model(load_checkpoint(folder), tmp_path / "half", name="half", dtype=torch.float16)
    assert {value.dtype for value in load_file(half / "model.safetensors").values() if value.ndim} == {torch.float16}
    loaded = load_checkpoint(half)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(_embed(loaded)[0], _embed(load_checkpoint(folder))[0], atol=5e-3, rtol=0)


def test_the_hash_follows_weights_and_configuration(folder, copy):
    assert weights_hash(copy) == weights_hash(folder)
    weights = load_file(copy / "model.safetensors")
    save_file({**weights, "log_scale": weights["log_scale"] + 1}, copy / "model.safetensors")
    assert weights_hash(copy) != weights_hash(folder)
    for name in ("config.json", "tokenizer.json"):
        before = weights_hash(copy)
        (copy / name).write_text((copy / name).read_text() + "\n")
        assert weights_hash(copy) != before, name
    before = weights_hash(copy)
    (copy / "MODEL_CARD.md").write_text("said otherwise")
    assert weights_hash(copy) == before


def test_a_model_without_a_card_of_its_own_gets_one_that_claims_nothing(folder, tmp_path):
    save_model(
        load_checkpoint(folder),
        tmp_path / "new",
        name="plain",
        trained_on=["a set"],
        notes={"figures": {"dev.top-1": 0.25}},
    )
    card = (tmp_path / "new" / "MODEL_CARD.md").read_text()
    for fact in ("# plain", "Trained on: a set", "Licence: not said", "dev.top-1, during training: 0.25"):
        assert fact in card


def test_an_older_folder_is_replaced_whole(folder, copy):
    (copy / "stray.txt").write_text("left from before")
    save_model(load_checkpoint(folder), copy, name="new")
    assert not (copy / "stray.txt").exists()
    assert read_config(copy).name == "new"
    assert [p.name for p in copy.parent.iterdir()] == ["copy"], "nothing stays beside it"


def test_what_a_killed_save_left_is_tidied_and_an_older_folder_put_back(folder, copy):
    for left in (copy.with_name(".copy.abc1234_"), copy.with_name(".copy.old.def567gh")):
        left.mkdir()
    for other in (".copies", ".copy.best.abc1234_", ".copy.txt"):
        copy.with_name(other).mkdir()
    (copy.with_name(".copy.abc1234_") / "model.safetensors").write_bytes(b"half")
    copy.rename(copy.with_name(".copy.old.def567gh") / "copy")  # killed between the two renamings
    tidy(copy)
    assert weights_hash(copy) == weights_hash(folder)
    tidy(copy)
    assert {path.name for path in copy.parent.iterdir()} == {"copy", ".copies", ".copy.best.abc1234_", ".copy.txt"}


def test_further_files_are_written_with_the_model(folder, tmp_path):
    made = save_model(
        load_checkpoint(folder), tmp_path / "made", name="made", card="a card", files={"seen.csv": "path\n"}
    )
    assert ((made / "MODEL_CARD.md").read_text(), (made / "seen.csv").read_text()) == ("a card", "path\n")


def test_a_failed_save_leaves_the_older_folder_alone(folder, copy, monkeypatch):
    before = weights_hash(copy)
    encoder = load_checkpoint(folder)

    def fail(self, folder):
        raise OSError("disk full")

    monkeypatch.setattr(type(encoder.text), "save_tokenizer", fail)
    with pytest.raises(ModelError, match="disk full"):
        save_model(encoder, copy, name="new")
    assert weights_hash(copy) == before
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]


def _damage(folder: Path, what: str) -> None:
    config, weights = folder / "config.json", folder / "model.safetensors"
    table = json.loads(config.read_text())
    match what:
        case "no config":
            config.unlink()
        case "config is no JSON":
            config.write_text("{")
        case "another format":
            config.write_text(json.dumps({**table, "format": 99}))
        case "unknown key":
            config.write_text(json.dumps({**table, "shape": 1}))
        case "unknown tower":
            config.write_text(json.dumps({**table, "visual": {**table["visual"], "tower": "frame_agregator"}}))
        case "no weights":
            weights.unlink()
        case "weights cut":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "weights of another network":
            config.write_text(json.dumps(table).replace('"lite0"', '"lite1"'))
        case "no scale":
            state = load_file(weights)
            del state["log_scale"]
            save_file(state, weights)
        case "no tokenizer":
            (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no config", "no config.json"),
        ("config is no JSON", "cannot be read"),
        ("another format", "format is 99"),
        ("unknown key", "unknown key 'shape'"),
        ("unknown tower", "did you mean 'frame_aggregator'"),
        ("no weights", "no model.safetensors"),
        ("weights cut", "damaged"),
        ("weights of another network", "does not fit"),
        ("no scale", "no log_scale"),
        ("no tokenizer", "tokenizer"),
    ],
)
def test_a_folder_that_is_not_whole_says_what_is_wrong(copy, what, said):
    _damage(copy, what)
    with pytest.raises(ModelError, match=said):
        load_checkpoint(copy).encode_text(["a"])
