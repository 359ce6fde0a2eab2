import json
from dataclasses import asdict

import pytest

from clipact.data.check import check_manifest
from tests.data.drawing import draw_data, write_manifest


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_data(tmp_path_factory.mktemp("data"))


def test_a_good_manifest_in_words_and_for_machines(clipact, data):
    done = clipact("data", "check", data / "pictures.csv")
    assert done.code == 0
    assert "train 10, test 2" in done.out
    done = clipact("data", "check", data / "pictures.csv", "--json")
    row = json.loads(done.out)
    assert (row["samples"], row["captions"], row["errors"], row["findings"]) == (12, 24, 0, [])


def test_errors_are_listed_and_the_exit_code_says_so(clipact, data, tmp_path):
    path = write_manifest(tmp_path / "m.csv", *({"path": f"{i}.png", "label": "x"} for i in range(60)))
    done = clipact("data", "check", path, "--data", data / "pictures")
    assert done.code == 1
    assert "line 14: error: 12.png: no such file" in done.out
    assert "48 errors" in done.err
    done = clipact("data", "check", path)
    assert "… and 10 more" in done.out
    row = json.loads(clipact("data", "check", path, "--json").out)
    assert (row["errors"], row["warnings"], row["labels"]) == (60, 0, {"x": 60})
    assert row["findings"] == [asdict(finding) for finding in check_manifest(path).findings]
    assert list(row)[-3:] == ["errors", "warnings", "findings"]


RECIPE = """
name = "own"
trained_on = ["own"]
init.model = "mini"
data.sources = [{ manifest = "pictures.csv" }, { manifest = "clips.csv", split = "all", frames = 4 }]
train.steps = 1
"""
PROTOCOL = """
name = "grey"
title = "Grey pictures"
metric = "retrieval"
source = "drawn"
data = { set = "greys", split = "test", parts = [{ manifest = "pictures.csv" }] }
"""


def test_all_tables_of_a_recipe_are_compared_with_what_a_protocol_judges_by(clipact, data, tmp_path):
    (tmp_path / "own.toml").write_text(RECIPE)
    (tmp_path / "grey.toml").write_text(PROTOCOL)
    asked = ("data", "check", tmp_path / "own.toml", "--data", data, "--against", tmp_path / "grey.toml")
    done = clipact(*asked)
    assert done.code == 0
    assert (
        "it is nearly pictures/10.png, which protocol grey evaluates on: 0 of 64 bits differ" in done.out
    )  # both are blank
    pictures, clips = map(json.loads, clipact(*asked, "--json").out.splitlines())
    assert (pictures["samples"], pictures["warnings"], clips["samples"], clips["warnings"]) == (10, 10, 3, 0)
    assert clips["manifest"] == str(data / "clips.csv")
    done = clipact("data", "check", data / "pictures.csv", "--against", "sports22")
    assert done.code == 2
    assert "--against is for a recipe" in done.err


def test_what_is_no_manifest_at_all_is_wrong_usage(clipact, tmp_path):
    done = clipact("data", "check", tmp_path / "none.csv")
    assert done.code == 2
    assert "No such file" in done.err
