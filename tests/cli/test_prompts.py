import csv
import json

from tests.evaluate.conftest import tree as tree


def test_list_names_every_set(clipact):
    done = clipact("prompts", "list")
    assert done.code == 0
    assert "wild-abnormality" in done.out
    assert "48 templates" in done.out


def test_show_says_what_labels_and_templates_read(clipact):
    assert "drink: A person is drinking.\n    a photo of drinking.\n" in clipact(
        "prompts", "show", "drink,UseLaptop", "--prompts", "single"
    ).out  # fmt: skip
    shown = clipact("prompts", "show", "wild-abnormality", "single").out
    assert "burglary: A person is breaking into a building.\n    also: burgling a house" in shown
    assert "source: the first of CLIP's 28" in shown
    assert clipact("prompts", "show", "kinetics40").code == 2


def test_lint_warns_and_is_no_error(clipact, tiny):
    done = clipact("prompts", "lint", "shoot,put on hat,take off hat", "--model", tiny, "--json")
    assert done.code == 0
    kinds = [json.loads(line)["kind"] for line in done.out.splitlines()]
    assert {"several senses", "order"} <= set(kinds)
    assert "closest pairs of 3 labels" in done.err


def test_sweep_writes_tables_and_a_page(clipact, tree, tiny, tmp_path):
    words = ["prompts", "sweep", tree / "table.csv", "--model", tiny, "--out", tmp_path, "--templates", "bare,single"]
    done = clipact(*words, "--frames", "2")
    assert done.code == 1  # one drawn file cannot be read
    assert "videos/05.mp4" in done.err
    assert "wordings, 13 samples" in done.out
    assert "baseline" in done.out
    with (tmp_path / "sweep.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["templates"] for line in lines} == {"bare", "single", "action"}
    assert (tmp_path / "sweep.html").read_text().startswith("<!DOCTYPE html>")
    rows = [json.loads(line) for line in clipact(*words, "--json").out.splitlines()]
    assert all(row["verdict"].startswith("zero-shot or not is unknown: ") for row in rows)
    assert sum(row["baseline"] for row in rows) == 1


def test_sweep_refuses_what_it_cannot_mean(clipact, tree, tiny):
    for words, told in [
        (["--frames", "4,x"], "numbers above 0"),
        (["--pooling", "mean"], "Known: embeddings"),
        (["--templates", "actoin"], "did you mean 'action'"),
    ]:
        done = clipact("prompts", "sweep", tree / "table.csv", "--model", tiny, *words)
        assert done.code == 2
        assert told in done.err
