"""A small part of eval/odd_folder.py: whatever is wrong with a file, each has its row."""

import importlib
import json
import shutil
from pathlib import Path

import pytest

from tests.video.corpus import need

# One of each: a palette, a key flag that lies, a beginning that is lost, a header without a frame,
# damage, and a picture.
KINDS = (
    "palette.avi",
    "no-index-msvideo1.avi",
    "begins-late.ts",
    "init.mp4",
    "damaged.mp4",
    "grey16.png",
)
UNREADABLE = {"init.mp4"}


@pytest.fixture
def odd_folder(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "eval"))
    need("ffmpeg", shutil.which("ffmpeg") is not None)
    return importlib.import_module("odd_folder")


def test_each_file_has_its_row(clipact, tiny, tmp_path, odd_folder):
    paths = odd_folder.draw_folder(tmp_path, 8, odd=KINDS)
    done = clipact("classify", *paths, "--labels", "drink,read", "--model", tiny, "--json")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["video"] for row in rows] == [str(path) for path in paths]
    errors = {Path(row["video"]).name: row["error"]["message"] for row in rows if row["error"]}
    assert set(errors) == UNREADABLE
    assert all(message.startswith(str(tmp_path)) for message in errors.values())
    assert done.code == 1
    assert "Traceback" not in done.err
