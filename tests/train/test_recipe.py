from pathlib import Path

import pytest

from clipact.errors import ConfigError
from clipact.studies.compare import load_settings
from clipact.train.masked import PretrainRecipe
from clipact.train.recipe import Recipe, load_recipe

TEXT = """
name = "x"
trained_on = ["y"]
init = { model = "mini" }
data = { sources = [{ manifest = "m.csv" }] }
[train]
steps = 3
"""


@pytest.fixture
def recipe(tmp_path):
    def load(text=TEXT, *changes):
        (tmp_path / "r.toml").write_text(text)
        return load_recipe(tmp_path / "r.toml", Recipe, changes=changes)

    return load


def test_a_recipe_is_read_and_changed(recipe):
    assert recipe().train.steps == 3
    changed = recipe(TEXT, "train.steps=7", "optim.lr=1e-4", 'data.sources=[{manifest="n.csv", split="all"}]')
    assert (changed.train.steps, changed.optim.lr, changed.data.sources[0].split) == (7, 1e-4, "all")


WRONG = {
    "train.stepz=3": "unknown key 'train.stepz'; did you mean 'steps'?",
    "optm.lr=1": "unknown key 'optm'; did you mean 'optim'?",
    "train.epochs=2": "either steps or epochs",
    "train.batch=0": "batch is 0",
    "train.precision='bf17'": "train.precision is 'bf17'",
    "train.label_smoothing=1": "label_smoothing is 1",
    "data.sources=[]": "data.sources is empty",
    "data.sources=[{manifest='m', splt='x'}]": "unknown key 'data.sources[0].splt'; did you mean 'split'?",
    "data.cached_augmentations=2": "without data.augment and data.cache there is one only",
    "data={sources=[{manifest='m'}], cached_augmentations=2, augment={}}": "cached of a frozen tower alone",
    "data.augment.flipp=1": "unknown key 'data.augment.flipp'; did you mean 'flip'?",
    "init.scale=-1": "init.scale is -1",
    "validation.every_steps=-1": "validation.every_steps is -1",
    "visual.trainable='some'": "visual.trainable is 'some'",
    "init.clip={frames=4}": "init.clip would have no effect: init.model is taken as it is",
}


@pytest.mark.parametrize("change", WRONG)
def test_what_cannot_be_meant_is_named(recipe, change):
    with pytest.raises(ConfigError) as caught:
        recipe(TEXT, change)
    assert WRONG[change] in str(caught.value)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "eval/recipes").glob("*.toml")), ids=lambda p: p.name
)
def test_the_recipes_that_come_with_the_project_are_read(path):
    if path.name.startswith("compare"):
        assert load_settings(path) != load_settings()
        return
    kind = PretrainRecipe if path.name.startswith("videomae") else Recipe
    assert load_recipe(path, kind).name


def test_a_sigmoid_loss_wants_a_bias(recipe):
    parts = 'init={visual={tower="v"}, text={tower="t"}, pretrained={tokenizer="tokenizer.json"}}'
    with pytest.raises(ConfigError, match=r"give init\.bias"):
        recipe(TEXT, parts, "train.loss='sigmoid'")


def test_a_start_is_a_model_or_parts(recipe):
    with pytest.raises(ConfigError, match="init takes model, or"):
        recipe(TEXT.replace('model = "mini"', "scale = 2.0"))
