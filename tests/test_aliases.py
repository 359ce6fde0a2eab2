"""Files of earlier versions are read: keys, values, columns and tensors under their old names."""

import json
import re
import warnings

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from clipact import aliases
from clipact.config import to_table
from clipact.data.manifest import read_manifest
from clipact.errors import ConfigError, ManifestError
from clipact.models.checkpoint import WEIGHTS, load_checkpoint, weights_hash
from clipact.train.recipe import Recipe, load_recipe
from clipact.train.trainer import STATE_FILE
from tests.data.drawing import draw_data, draw_picture, write_manifest
from tests.tiny import tiny_checkpoint
from tests.train.small_run import small_model, small_recipe, small_run

OLD_WEIGHTS = {new: old for old, new in aliases.WEIGHTS.items()}
OLD_STATE = {new: old for old, new in aliases.STATE_TENSORS.items()}


def _nested(path, value):
    """A table that holds a value at a path; `*` is a list of one."""
    first, *rest = path
    inner = _nested(rest, value) if rest else value
    return [inner] if first == "*" else {first: inner}


def _at(table, path):
    for key in path:
        table = table[0 if key == "*" else key]
    return table


@pytest.mark.parametrize(("kind", "old"), [(kind, old) for kind, keys in aliases.KEYS.items() for old in keys])
def test_a_key_is_read_under_its_new_name(kind, old):
    new, value = aliases.KEYS[kind][old], {"x": 1}
    table = _nested(old.split("."), value)
    with pytest.warns(UserWarning, match=re.escape(f"{old} is now {new}")) as caught:
        found = aliases.rename(table, kind)
    assert len(caught) == 1
    assert _at(found, new.split(".")) == value
    assert table == _nested(old.split("."), value), "what was read is not changed"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert aliases.rename(found, kind) == found


@pytest.mark.parametrize(
    ("kind", "path", "old"),
    [(kind, path, old) for kind, tables in aliases.VALUES.items() for path, values in tables.items() for old in values],
)
def test_a_value_is_read_as_its_new_one(kind, path, old):
    new = aliases.VALUES[kind][path][old]
    with pytest.warns(UserWarning, match=f"'{old}' is now '{new}'"):
        found = aliases.rename(_nested(path.split("."), old), kind)
    assert _at(found, path.split(".")) == new


@pytest.mark.parametrize(("kind", "path"), [(kind, path) for kind, keys in aliases.REMOVED.items() for path in keys])
def test_a_removed_key_is_read_at_the_value_that_is_left_and_refused_at_another(kind, path):
    value, instead = aliases.REMOVED[kind][path]
    found = aliases.rename(_nested(path.split("."), value), kind)
    assert _at(found, path.split(".")[:-1]) == {}
    with pytest.raises(ConfigError) as caught:
        aliases.rename(_nested(path.split("."), value + 1), kind)
    assert path in str(caught.value)
    assert instead in str(caught.value)


def test_an_assignment_under_an_old_name_changes_that_key_alone(tmp_path):
    path = tmp_path / "new.toml"
    path.write_text(NEW_RECIPE)
    with pytest.warns(UserWarning, match="start is now init"):
        changed = load_recipe(path, Recipe, changes=["start.model=other"])
    plain = load_recipe(path, Recipe)
    assert changed.init.model == "other"
    assert changed.init.visual == plain.init.visual != {}
    with pytest.warns(UserWarning, match="judge is now validation"):
        changed = load_recipe(path, Recipe, changes=["judge.every=7", "train.accumulate=1"])
    assert (changed.validation.every_steps, changed.validation.sets) == (7, plain.validation.sets)


def test_a_name_is_said_once():
    with pytest.warns(UserWarning, match="start is now init"):
        aliases.rename({"start": {}}, "recipe")
    assert aliases.rename({"start": {}}, "recipe") == {"init": {}}  # a warning would be an error


def test_both_names_of_a_column_are_refused(tmp_path):
    (tmp_path / "both.csv").write_text("path,label,also,extra_labels\na.mp4,x,y,z\n")
    with pytest.raises(ManifestError, match="also and extra_labels, which are one"):
        read_manifest(tmp_path / "both.csv")


def test_both_names_of_a_key_are_refused():
    with pytest.raises(ConfigError, match="start and init, which are one key"):
        aliases.rename({"start": {}, "init": {}}, "recipe")


OLD_RECIPE = """
name = "x"
trained_on = ["y"]
start = { model = "mini", visual = { tower = "attentive" } }
train = { steps = 3, memory_gb = 2.0, accumulate = 1 }
optim = { average_decay = 0.9, start_share = 0.2, eps = 1e-6 }
visual.learns = "head"
text.learns = "nothing"
teach = { models = ["mini"], share = 0.25 }
[data]
views = 2
augment = {}
broken_limit = 3
sources = [{ card = "sports22" }, { manifest = "m.csv", vary = { tense = 0.5 } }]
[judge]
every = 5
best = "dev.top_1"
sets = [{ name = "dev", card = "sports22" }]
"""
NEW_RECIPE = """
name = "x"
trained_on = ["y"]
init = { model = "mini", visual = { tower = "attention_pool" } }
train = { steps = 3, graph_memory_gb = 2.0 }
optim = { ema_decay = 0.9, wise_ft_alpha = 0.2 }
visual.trainable = "head"
text.trainable = "nothing"
distillation = { teachers = ["mini"], weight = 0.25 }
[data]
cached_augmentations = 2
augment = {}
max_unreadable = 3
sources = [{ protocol = "sports22" }, { manifest = "m.csv", caption_augmentation = { tense = 0.5 } }]
[validation]
every_steps = 5
monitor = "dev.top_1"
sets = [{ name = "dev", protocol = "sports22" }]
"""


def test_an_old_recipe_is_the_new_one_with_one_warning(tmp_path):
    (tmp_path / "old.toml").write_text(OLD_RECIPE)
    (tmp_path / "new.toml").write_text(NEW_RECIPE)
    with pytest.warns(UserWarning, match="start is now init; .*judge is now validation") as caught:
        old = load_recipe(tmp_path / "old.toml", Recipe)
    assert len(caught) == 1
    assert old == load_recipe(tmp_path / "new.toml", Recipe)


def test_an_old_key_may_be_set_and_replaces_the_new_one(tmp_path):
    (tmp_path / "new.toml").write_text(NEW_RECIPE)
    with pytest.warns(UserWarning, match="train.memory_gb is now train.graph_memory_gb"):
        recipe = load_recipe(tmp_path / "new.toml", Recipe, changes=["train.memory_gb=4.0"])
    assert recipe.train.graph_memory_gb == 4.0


def test_an_old_column_of_a_manifest_is_read_with_one_warning(tmp_path):
    draw_picture(tmp_path / "a.png", shade=9)
    table = write_manifest(tmp_path / "m.csv", {"path": "a.png", "label": "run", "also": "jog|sprint"})
    with pytest.warns(UserWarning, match="column also is now extra_labels") as caught:
        (sample,) = read_manifest(table).samples
    assert len(caught) == 1
    assert sample.extra_labels == ("jog", "sprint")


def _old_weight(name):
    return ".".join(OLD_WEIGHTS.get(part, part) for part in name.split("."))


def test_an_old_model_is_the_new_one(tmp_path):
    folder = tiny_checkpoint(tmp_path / "tiny")
    before = load_checkpoint(folder).state_dict()
    weights = load_file(folder / WEIGHTS)
    assert {part for name in weights for part in name.split(".")} >= set(OLD_WEIGHTS)
    save_file({_old_weight(name): tensor for name, tensor in weights.items()}, folder / WEIGHTS)
    config = json.loads((folder / "config.json").read_text())
    config["visual"]["tower"], config["clip"]["sampling"] = "frames", "middles"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="tower 'frames' is now 'frame_aggregator'") as caught:
        after = load_checkpoint(folder).state_dict()
    assert len({str(warning.message) for warning in caught}) == 1
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def _old_names(table, moves):
    """The table with keys as they were; a move is the path of a table, its new key, and the old one."""
    for path, new, old in moves:
        for place in [_at(table, path)] if "*" not in path else _at(table, path[: path.index("*")]):
            if new in place:
                place[old] = place.pop(new)
    return table


OLD_KEYS = (
    (["data", "sources", "*"], "protocol", "card"),
    (["data", "sources", "*"], "caption_augmentation", "vary"),
    (["data"], "cached_augmentations", "views"),
    (["data"], "max_unreadable", "broken_limit"),
    (["validation"], "every_steps", "every"),
    (["visual"], "trainable", "learns"),
    (["text"], "trainable", "learns"),
    (["train"], "graph_memory_gb", "memory_gb"),
    (["optim"], "ema_decay", "average_decay"),
    (["optim"], "wise_ft_alpha", "start_share"),
    (["distillation"], "teachers", "models"),
    (["distillation"], "weight", "share"),
    ([], "init", "start"),
    ([], "validation", "judge"),
    ([], "distillation", "teach"),
)


@pytest.mark.filterwarnings("ignore:this (recipe|training state) has names of an earlier version")
def test_a_run_that_an_earlier_version_began_goes_on_bit_for_bit(tmp_path):
    data, model = draw_data(tmp_path / "data"), small_model(tmp_path / "small")
    recipe = small_recipe(model, optim={"wise_ft_alpha": 0.3})

    def train(name, *, stop_after=None, resume=False):
        trainer = small_run(recipe, data, tmp_path / "cache")
        for metrics in trainer.train(tmp_path / name, resume=resume):
            trainer.stopping = metrics.step == stop_after
        return tmp_path / name

    whole, cut = train("whole"), train("cut", stop_after=4)
    with safe_open(cut / STATE_FILE, framework="pt") as file:
        facts = json.loads(file.metadata()["clipact"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    progress = facts["progress"]
    assert progress["recipe"] == to_table(recipe)
    progress["broken"], progress["kept_chunks"] = progress.pop("unreadable_files"), progress.pop("retained_chunks")
    progress["recipe"]["train"]["accumulate"] = 1
    progress["recipe"]["optim"] |= {"eps": 1e-6, "final_lr": 0.0, "visual_lr": 1.0}
    _old_names(progress["recipe"], OLD_KEYS)
    assert {"start", "judge", "teach"} <= progress["recipe"].keys()
    old = {}
    for name, tensor in tensors.items():
        first, _, rest = name.partition(".")
        old[_old_weight(f"{OLD_STATE.get(first, first)}.{rest}")] = tensor
    assert old.keys() != tensors.keys()
    save_file(old, cut / STATE_FILE, metadata={"clipact": json.dumps(facts)})
    assert weights_hash(train("cut", resume=True) / "last") == weights_hash(whole / "last")
