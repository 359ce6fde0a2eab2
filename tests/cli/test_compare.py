"""`clipact compare` at the command line: a table, lines for machines, a page, and how it ends."""

import json

from tests.studies.conftest import shades as shades

SMALL = ("--set", "clip.frames=2", "--set", "clip.size=[16,16]", "--device", "cpu")


def test_rows_stand_side_by_side_and_one_that_fails_is_named(clipact, shades, tmp_path):
    small, out = shades / "small", tmp_path / "out"
    words = ("compare", shades / "shades.csv", "--out", out, *SMALL)
    done = clipact(*words, "--models", f"knn:{small}@3, probe:{small}")
    assert done.code == 0, done.err
    assert "2 frames of 16 x 16 pixels · 4 clips judge" in done.out
    assert "split by group: 4 of 6 are learnt from, 2 judge" in done.out
    assert max(map(len, done.out.splitlines()[:-1])) <= 80
    assert "of 2 groups no p is below 0.5" in " ".join(done.out.split())
    page, found = out / "comparison.html", json.loads((out / "comparison.json").read_text())
    assert str(page.name) in done.out
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert [row["of"] for row in found["rows"]] == [1, 1]
    more = (*words, "--models", f"knn:{small}@3,few-shot:{small}@99", "--json")
    refused = clipact(*more)
    assert (refused.code, "go on with --resume" in " ".join(refused.err.split())) == (2, True)
    done = clipact(*more, "--resume")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 1
    assert rows[0]["top_1"] == found["rows"][0]["top_1"]
    assert rows[0]["zero_shot_status"].startswith("not zero-shot: supervised: a nearest probe")
    assert "shots is 99" in rows[1]["failed"]
    assert "finished before" in done.err
    assert "few-shot" in done.err
    assert "shots is 99" in " ".join(done.err.split())


def test_what_cannot_be_meant_is_wrong_usage(clipact, shades, tmp_path):
    for words, said in (
        (("compare", shades / "shades.csv", "--models", "i4d"), "did you mean 'i3d'"),
        (("compare", shades / "shades.csv", "--models", "i3d", "--split", "x/3"), "no sample is of split"),
        (("compare", shades / "shades.csv", "--models", "i3d", "--set", "whole.steps=3"), "unknown key 'whole.steps'"),
        (("compare", "weizman", "--models", "i3d"), "did you mean 'weizmann'"),
    ):
        done = clipact(*words, "--out", tmp_path / "never")
        assert (done.code, said in " ".join(done.err.split())) == (2, True), done.err
    assert not (tmp_path / "never").exists()
