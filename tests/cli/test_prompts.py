import csv
import json

from tests.evaluate.conftest import tree as tree


def test_list_names_every_set(clipact):
    done = clipact("prompts", "list")
    assert done.code == 0
    assert "wild-abnormality" in done.out
    assert "48 templates" in done.out
    assert "(:ten)" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    sets = {(one := json.loads(line))["name"]: one for line in clipact("prompts", "list", "--json").out.splitlines()}
    assert sets["ucf-crime"]["tags"] == ["anomaly", "normal"]
    assert (sets["action"]["kind"], sets["kinetics700"]["count"]) == ("templates", 700)


def test_show_says_what_labels_and_templates_read(clipact):
    assert "drink: A person is drinking.\n    a photo of drinking.\n" in clipact(
        "prompts", "show", "drink,UseLaptop", "--prompts", "single"
    ).out  # fmt: skip
    shown = clipact("prompts", "show", "wild-abnormality", "single").out
    assert "burglary: A person is breaking into a building.\n    also: burgling a house" in shown
    assert "source: the first of CLIP's 28" in shown
    assert "part of: theft\n    tags: abnormal" in shown
    assert clipact("prompts", "show", "kinetics40").code == 2


def test_show_takes_files_of_both_kinds(clipact, tmp_path):
    text = 'name = "mine"\ntemplates = ["look, {}!", "{}"]\nweights = [3, 1]\n[wording]\nover_templates = "weighted"\n'
    (tmp_path / "mine.toml").write_text(text)
    (tmp_path / "own.toml").write_text('name = "own"\nlabels = ["drink", "UseLaptop"]\n')
    (tmp_path / "plain.txt").write_text("read\n")
    assert "  look, {}!  (weight 3)\n" in clipact("prompts", "show", tmp_path / "mine.toml").out
    done = clipact(
        "prompts", "show", tmp_path / "own.toml", tmp_path / "plain.txt", "--prompts", tmp_path / "mine.toml"
    )
    assert (
        "UseLaptop: A person is using laptop.\n    look, using laptop!\n    using laptop\nread: A person is" in done.out
    )
    missing = clipact("prompts", "show", "none.toml")
    assert (missing.code, "none.toml: no such file" in missing.err) == (2, True)


def test_lint_warns_and_is_no_error(clipact, tiny):
    done = clipact("prompts", "lint", "shoot,put on hat,take off hat", "--model", tiny, "--json")
    assert done.code == 0
    kinds = [json.loads(line)["kind"] for line in done.out.splitlines()]
    assert {"several senses", "order"} <= set(kinds)
    assert kinds.count("closest pair") == 3
    read = clipact("prompts", "lint", f"shoot,put on hat,take off hat,{'very ' * 20}long", "--model", tiny).out
    assert "order (1): only order or motion tells them apart" in read
    assert "    put on hat | take off hat\n        putting on / taking off\n" in read
    assert "closest pairs of 4 labels" in read
    assert f"{'very ' * 20}long" not in read.partition("closest")[2]


def test_sweep_writes_tables_and_a_page(clipact, tree, tiny, tmp_path):
    words = ["prompts", "sweep", tree / "table.csv", "--model", tiny, "--out", tmp_path, "--templates", "bare,single"]
    done = clipact(*words, "--frames", "2")
    assert done.code == 1  # one drawn file cannot be read
    assert "videos/05.mp4" in done.err
    assert "wordings, 13 samples" in " ".join(done.out.split())
    assert "baseline" in done.out
    with (tmp_path / "sweep.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["templates"] for line in lines} == {"bare", "single", "action"}
    assert (tmp_path / "sweep.html").read_text().startswith("<!DOCTYPE html>")
    rows = [json.loads(line) for line in clipact(*words, "--json").out.splitlines()]
    assert all(row["zero_shot_status"].startswith("zero-shot or not is unknown: ") for row in rows)
    assert sum(row["baseline"] for row in rows) == 1


def test_sweep_takes_a_protocol_and_says_more_of_a_tables_labels(clipact, tree, tiny, tmp_path):
    protocol = (
        'name = "own"\ntitle = "mine"\nmetric = "top_1"\nsource = "drawn"\n[data]\nset = "nothing"\ngroup = "person"\n'
    )
    protocol += '[[data.parts]]\nmanifest = "table.csv"\n[words]\ntemplates = "single"\n'
    (tmp_path / "own.toml").write_text(protocol)
    more = 'name = "three"\nlabels = ["waving", "jumping", "bending"]\n[about.waving]\nsynonyms = ["greet"]\n'
    (tmp_path / "three.toml").write_text(more)
    few = (
        "--model",
        tiny,
        "--templates",
        "bare",
        "--pooling",
        "embeddings",
        "--frames",
        "2",
        "--out",
        tmp_path,
        "--json",
    )
    done = clipact("prompts", "sweep", tmp_path / "own.toml", "--data", tree, *few)
    assert [json.loads(line)["variant"] for line in done.out.splitlines() if '"baseline": true' in line] == [
        "single, 2 frames"
    ]
    done = clipact("prompts", "sweep", tree / "table.csv", "--labels", tmp_path / "three.toml", *few)
    assert "bare, + synonyms, 2 frames" in [json.loads(line)["variant"] for line in done.out.splitlines()]
    refused = clipact("prompts", "sweep", tmp_path / "own.toml", "--data", tree, "--labels", "hmdb51", *few)
    assert (refused.code, "a protocol names its own" in refused.err) == (2, True)


def test_sweep_finds_a_place_that_is_taken_before_it_runs(clipact, tree, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("clipact.models.zoo.load_model", None)
    (tmp_path / "taken").write_text("")
    done = clipact("prompts", "sweep", tree / "table.csv", "--model", tiny, "--out", tmp_path / "taken")
    assert (done.code, "taken cannot be used" in done.err) == (1, True)


def test_sweep_refuses_what_it_cannot_mean(clipact, tree, tiny):
    for words, told in [
        (["--frames", "4,x"], "numbers above 0"),
        (["--pooling", "mean"], "known: embeddings"),
        (["--templates", "actoin"], "did you mean 'action'"),
    ]:
        done = clipact("prompts", "sweep", tree / "table.csv", "--model", tiny, *words)
        assert done.code == 2
        assert told in done.err
