import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from clipact.cli.app import app
from clipact.data.protocol import protocol_names
from clipact.errors import ClipactError, DataError, ResultError, UsageError
from clipact.evaluate.results import identical, load_result
from tests.evaluate.conftest import tree as tree

PROTOCOL = """
name = "own"
title = "A protocol of one's own"
metric = "top_1"
source = "drawn here"
[data]
set = "nothing"
group = "person"
count = 14
[[data.parts]]
manifest = "table.csv"
[words]
names = ["waving", "jumping", "bending"]
"""


@pytest.fixture
def protocol(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(PROTOCOL)
    return path


def run(*words, code=1):
    """What the command gives; one drawn file cannot be read, so that 1 is usual."""
    done = CliRunner().invoke(app, ["eval", *map(str, words)])
    if isinstance(done.exception, ClipactError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done


def test_the_table_fits_a_terminal_and_says_not_zero_shot(protocol, tree, tiny, tmp_path):
    done = run(protocol, "--data", tree, "--model", tiny, "--out", tmp_path / "out")
    lines = done.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines if str(tmp_path) not in line)
    assert any("not zero-shot: trained on nothing" in line for line in lines)
    assert any(line.startswith("top-1") and "–" in line and line.rstrip().endswith("13") for line in lines)
    assert "1 of 14 files could not be read" in done.stdout
    assert "videos/05.mp4" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["own--tiny"]


def test_json_gives_a_line_for_each_protocol_and_model(protocol, tree, tiny, tmp_path):
    words = ["--data", tree, "--model", tiny, "--out", tmp_path / "out", "--json"]
    rows = [json.loads(line) for line in run(protocol, tree / "table.csv", *words).stdout.splitlines()]
    assert [row["protocol"] for row in rows] == ["own", "table"]
    assert [row["zero_shot"] for row in rows] == [False, None]
    assert rows[0]["zero_shot_why"] == "trained on nothing"
    assert rows[0]["verdict"] == "not zero-shot: trained on nothing"
    assert rows[0]["figures"][0]["name"] == "top-1"
    kept = load_result(rows[0]["result"])
    assert kept.run["zero_shot"] is False
    assert kept.unreadable[0][0] == rows[0]["unreadable"][0][0]
    assert kept.groups is not None


@pytest.fixture
def captions(tree, tmp_path):
    """A retrieval protocol on captions of the drawn files: (the words of the command, the protocol)."""
    lines = [f"videos/{number:02}.mp4,{said}" for number in range(7) for said in (f"clip {number}", f"{number} moves")]
    (tree / "captions.csv").write_text("\n".join(["path,caption", *lines]) + "\n")
    own = tmp_path / "said.toml"
    own.write_text(
        'name = "said"\ntitle = "Said"\nmetric = "retrieval"\nsource = "drawn here"\n[data]\nset = "other"\n'
        'aliases = ["nothing"]\ncount = 7\n[[data.parts]]\nmanifest = "captions.csv"\n[views]\nviews = 2\n'
    )
    return own


def test_captions_are_retrieved_both_ways(captions, tree, tiny, tmp_path):
    words = [captions, tree / "captions.csv", "--data", tree, "--model", tiny, "--out", tmp_path / "out"]
    row, table = (json.loads(line) for line in run(*words, "--json").stdout.splitlines())
    assert row["verdict"] == "not zero-shot: trained on nothing"  # the protocol's set holds it
    assert table["zero_shot"] is None
    named = {one["name"]: one for one in row["figures"]}
    assert list(named)[:2] == ["text to visual recall@1", "visual to text recall@1"]
    assert {f"{way} median rank" for way in ("text to visual", "visual to text")} <= set(named)
    assert (named["text to visual recall@5"]["count"], named["visual to text recall@5"]["count"]) == (12, 6)
    assert row["unreadable"][0][0] == "videos/05.mp4"
    kept = load_result(row["result"])
    assert identical(kept, load_result(json.loads(run(*words, "--json", "--resume").stdout.splitlines()[0])["result"]))
    assert kept.run["views"]["averaging"] == "embeddings"
    assert "text to visual median rank" in run(*words).stdout


@pytest.mark.parametrize("wrong", [["--averaging", "logits"], ["--prompts", "single"]])
def test_what_retrieval_cannot_do_is_refused(captions, tree, tiny, tmp_path, wrong):
    with pytest.raises(UsageError, match="is for labels"):
        run(captions, "--data", tree, "--model", tiny, "--out", tmp_path / "out", *wrong)
    assert not (tmp_path / "out").exists()


def test_a_cards_resize_crops_and_averaging_are_taken(protocol, tree, tiny, tmp_path):
    words = ["--data", tree, "--model", tiny, "--out", tmp_path / "out", "--json"]
    for views in ({"resize": "squash", "crops": 1}, {"resize": "shortest", "crops": 3}):
        views |= {"frames": 2, "averaging": "logits"}
        protocol.write_text(PROTOCOL + "[views]\n" + "".join(f"{name} = {value!r}\n" for name, value in views.items()))
        said = load_result(json.loads(run(protocol, *words).stdout)["result"]).run["views"]
        assert {name: said[name] for name in views} == views


def test_a_column_named_group_clusters_a_table_of_ones_own(tree, tiny, tmp_path):
    (tmp_path / "mine.csv").write_text((tree / "table.csv").read_text().replace("person", "group"))
    words = ["--data", tree, "--model", tiny, "--out", tmp_path / "out", "--json"]
    rows = [json.loads(run(path, *words).stdout) for path in (tmp_path / "mine.csv", tree / "table.csv")]
    own, plain = (load_result(row["result"]) for row in rows)
    assert own.groups == tuple(f"p{number // 2}" for number in range(14) if number != 5)
    assert plain.groups is None
    own, plain = (row["figures"][0] for row in rows)
    assert own["value"] == plain["value"]
    assert (own["low"], own["high"]) != (plain["low"], plain["high"])


def test_another_way_than_the_cards_is_another_result_and_says_so(protocol, tree, tiny, tmp_path):
    words = ["--data", tree, "--model", tiny, "--out", tmp_path / "out", "--json"]
    row = json.loads(run(protocol, *words, "--prompts", "single", "--views", 2, "--averaging", "logits").stdout)
    assert row["protocol"] == "own--single--views-2--logits"
    assert row["partial_why"][:3] == [
        "prompts single instead of action", "views 2 instead of 1", "averaging logits instead of embeddings"
    ]  # fmt: skip
    assert load_result(row["result"]).run["views"]["views"] == 2


def test_in_16_bits_it_is_a_result_of_its_own_and_takes_nothing_from_the_store(protocol, tree, tiny, tmp_path):
    words = [protocol, "--data", tree, "--model", tiny, "--out", tmp_path / "out", "--json"]
    exact, near = (json.loads(run(*words, "--precision", one).stdout)["result"] for one in ("fp32", "bf16"))
    assert [Path(one).name for one in (exact, near)] == ["own--tiny", "own--tiny-bf16"]
    assert json.loads(run(*words, "--precision", "auto").stdout)["result"] == exact  # it did not learn in 16 bits
    exact, near = load_result(exact), load_result(near)
    assert [one.run["model"]["precision"] for one in (exact, near)] == ["fp32", "bf16"]
    assert not np.array_equal(exact.scores, near.scores)
    np.testing.assert_allclose(near.scores, exact.scores, atol=0.5)


def test_resume_keeps_what_is_done_and_notices_another_protocol(protocol, tree, tiny, tmp_path, monkeypatch):
    words = [protocol, "--data", tree, "--model", tiny, "--out", tmp_path / "out"]
    run(*words)
    first = load_result(tmp_path / "out" / "own--tiny")
    run(*words, "--resume")
    assert load_result(tmp_path / "out" / "own--tiny").run["date"] == first.run["date"]
    assert identical(load_result(tmp_path / "out" / "own--tiny"), first)
    protocol.write_text(PROTOCOL.replace('"waving", "jumping"', '"jumping", "waving"'))
    run(*words, "--resume")
    assert load_result(tmp_path / "out" / "own--tiny").labels == ("jumping", "waving", "bending")


def test_resume_notices_that_a_file_of_prompts_reads_otherwise(protocol, tree, tiny, tmp_path):
    words = [protocol, "--data", tree, "--model", tiny, "--out", tmp_path / "out", "--prompts", tmp_path / "p.toml"]
    read = {}
    for text in ("{} indoors", "{} outdoors", "{} outdoors"):
        (tmp_path / "p.toml").write_text(f'name = "p"\ntemplates = ["{text}"]\n')
        row = json.loads(run(*words, "--resume", "--json").stdout)
        result = load_result(row["result"])
        assert result.run["prompts"]["templates"] == [text]
        read.setdefault(text, []).append((result.run["date"], result.run["prompts"]["sha256"]))
    again, kept = read["{} outdoors"]
    assert again == kept
    assert again[1] != read["{} indoors"][0][1]


def test_a_protocol_may_ask_for_labels_as_they_are(protocol, tree, tiny, tmp_path):
    protocol.write_text(PROTOCOL.replace("[words]", "[words]\nverbatim = true"))
    row = json.loads(run(protocol, "--data", tree, "--model", tiny, "--out", tmp_path / "out", "--json").stdout)
    result = load_result(row["result"])
    assert result.run["prompts"]["phrases"] == list(result.labels)


def test_other_data_are_refused_unless_one_says_so(protocol, tree, tiny, tmp_path):
    protocol.write_text(PROTOCOL.replace("count = 14", "count = 15"))
    words = [protocol, "--data", tree, "--model", tiny, "--out", tmp_path / "out"]
    with pytest.raises(DataError, match="14 samples, where the protocol says 15"):
        run(*words)
    row = json.loads(run(*words, "--allow-mismatch", "--json").stdout)
    assert row["partial"]
    assert "the protocol says 15" in row["partial_why"][0]


def test_two_of_one_name_do_not_overwrite_each_other(tree, tiny, tmp_path):
    """runs/a/best and runs/b/best, a/test.csv and b/test.csv: four results, found again when asked for again."""
    (tmp_path / "b").mkdir()
    shutil.copytree(tiny, tmp_path / "b/tiny")
    shutil.copy(tree / "table.csv", tmp_path / "b/table.csv")
    words = [tree / "table.csv", tmp_path / "b/table.csv", "--data", tree, "--out", tmp_path / "out", "--json"]
    words += ["--model", tiny, "--model", tmp_path / "b/tiny"]
    for extra in ([], ["--resume"], []):
        rows = [json.loads(line) for line in run(*words, *extra).stdout.splitlines()]
        kept = [load_result(row["result"]).run for row in rows]
        assert [one["model"]["name"] for one in kept] == [row["model"] for row in rows]
        assert len({row["result"] for row in rows}) == len(list((tmp_path / "out").iterdir())) == 4
    assert rows[0]["result"].endswith("table--tiny")


def test_splits_and_prompt_files_of_one_name_do_not_overwrite_each_other(tree, tiny, tmp_path):
    lines = (tree / "table.csv").read_text().splitlines()
    halves = [f"{line},{'dev' if number < 8 else 'test'}" for number, line in enumerate(lines[1:])]
    (tmp_path / "t.csv").write_text("\n".join([f"{lines[0]},split", *halves]) + "\n")
    words = [tmp_path / "t.csv", "--data", tree, "--out", tmp_path / "out", "--model", tiny, "--json"]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w.toml").write_text(f'name = "w"\nsource = "me"\ntemplates = ["{folder} {{}}."]\n')
    ways = [["--split", "dev"], ["--split", "test"]]
    ways += [["--split", "test", "--prompts", tmp_path / folder / "w.toml"] for folder in ("a", "b")]
    rows = [json.loads(run(*words, *way, code=int("dev" in way)).stdout) for way in ways]
    assert [row["samples"] for row in rows] == [7, 6, 6, 6]
    kept = [load_result(row["result"]) for row in rows]
    assert [len(one.samples) for one in kept] == [7, 6, 6, 6]
    assert [one.run["prompts"]["templates"] for one in kept[2:]] == [["a {}."], ["b {}."]]
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_a_folder_of_something_else_is_found_before_anything_runs(protocol, tree, tiny, tmp_path):
    (tmp_path / "out/own--tiny").mkdir(parents=True)
    (tmp_path / "out/own--tiny/letter.txt").write_text("mine")
    with pytest.raises(ResultError, match="holds no result"):
        run(tree / "table.csv", protocol, "--data", tree, "--model", tiny, "--out", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["own--tiny", "letter.txt"]


def test_a_wrong_word_is_known_before_anything_runs(protocol, tree, tiny, tmp_path):
    words = [protocol, "--data", tree, "--out", tmp_path / "out", "--model", tiny]
    for wrong in (["--model", "minni"], ["--prompts", "nonesuch"], [tree / "none.csv"]):
        with pytest.raises(ClipactError):
            run(*words, *wrong)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["weizman"], "did you mean 'weizmann'"),
        (["weizmann", "--averaging", "logit"], "did you mean 'logits'"),
        (["weizmann", "--split", "test"], "--split is for tables"),
    ],
)
def test_wrong_words_are_usage_errors(words, says):
    with pytest.raises(UsageError, match=says):
        run(*words)


def test_help_names_every_protocol():
    text = CliRunner().invoke(app, ["eval", "--help"], terminal_width=80).output
    assert all(name in text for name in protocol_names())
