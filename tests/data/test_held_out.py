import shutil

import pytest

from clipact.data.check import check_manifest
from clipact.data.held_out import read_held_out
from clipact.data.protocol import load_protocol
from clipact.errors import DataError
from tests.data.drawing import blocks, write_manifest
from tests.video.drawing import draw_video

PROTOCOL = """
name = "judge"
title = "Drawn"
metric = "top_1"
source = "drawn"
[data]
set = "drawn"
root = "held"
split = "test"
parts = [{ list = "list.csv" }]
"""


@pytest.fixture
def tree(tmp_path):
    """A protocol of two pictures and a clip, of which all that is learnt from is one, nearly one, or none."""
    for name in ("held", "learnt"):
        (tmp_path / name).mkdir()
    blocks(0).save(tmp_path / "held/a.png")
    blocks(1).save(tmp_path / "held/b.png")
    blocks(2).save(tmp_path / "held/trained.png")
    draw_video(tmp_path / "held/c.mp4", frames=12)
    names = {"a.png": "test", "b.png": "test", "c.mp4": "test", "trained.png": "train"}
    write_manifest(tmp_path / "list.csv", *({"path": p, "label": "x", "split": s} for p, s in names.items()))
    (tmp_path / "judge.toml").write_text(PROTOCOL)
    shutil.copy(tmp_path / "held/c.mp4", tmp_path / "learnt/same.mp4")
    shutil.copy(tmp_path / "held/a.png", tmp_path / "learnt/same.png")
    shutil.copy(tmp_path / "held/trained.png", tmp_path / "learnt/trained.png")
    blocks(1, (45, 40)).save(tmp_path / "learnt/small.jpg", quality=60)
    blocks(3).save(tmp_path / "learnt/other.png")
    learnt = ("same.mp4", "same.png", "trained.png", "small.jpg", "other.png")
    write_manifest(tmp_path / "learnt/m.csv", *({"path": p, "label": "x", "split": "train"} for p in learnt))
    (tmp_path / "learnt/more.csv").write_text((tmp_path / "learnt/m.csv").read_text() + "gone.png,x,test\n")
    return tmp_path


def test_copies_of_what_judges_are_named_by_their_bytes_and_by_their_looks(tree):
    held = read_held_out(load_protocol(tree / "judge.toml"), tree)
    assert [one.name for one in held] == ["a.png", "b.png", "c.mp4"]
    report = check_manifest(tree / "learnt/m.csv", against=held, frames=1)
    assert [(one.kind, one.line, one.path) for one in report.findings] == [
        ("warning", 2, "same.mp4"),
        ("warning", 3, "same.png"),
        ("warning", 5, "small.jpg"),
    ]
    causes = [one.cause for one in report.findings]
    same = "which protocol judge evaluates on"
    assert causes[:2] == [f"it is c.mp4, {same}", f"it is a.png, {same}"]
    assert causes[2].startswith("it is nearly b.png, which protocol judge evaluates on: ")
    assert causes[2].endswith(" of 64 bits differ")
    assert check_manifest(tree / "learnt/m.csv", frames=1).findings == ()


def test_only_what_would_be_learnt_from_is_read(tree):
    assert check_manifest(tree / "learnt/more.csv").errors == 1
    assert check_manifest(tree / "learnt/more.csv", split="train").findings == ()


def test_nothing_is_said_to_be_clean_of_what_is_not_there(tree):
    (tree / "held/b.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 files cannot be read, b\.png among them"):
        read_held_out(load_protocol(tree / "judge.toml"), tree)
