"""The wheel carries all that the main job needs: built here, installed elsewhere, it classifies a real clip."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_carries_prompts_and_weights_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "clipact/py.typed",
        "clipact/_assets/mini/model.safetensors",
        "clipact/_assets/mini/MODEL_CARD.md",
        "clipact/_assets/prompts/background.toml",
        "clipact/_assets/prompts/templates/action.toml",
        "clipact/_assets/prompts/labels/daily-living.toml",
        "clipact/_assets/eval/protocols/weizmann.toml",
        "clipact/_assets/eval/protocols/lists/ucf101-test1.csv",
    ):
        assert needed in names
    assert not [name for name in names if name.startswith(("tests/", "eval/", "examples/"))]


def test_installed_elsewhere_it_classifies_a_real_clip(wheel, tmp_path):
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True)
    done = subprocess.run(
        [str(site / "bin" / "clipact"), "classify", str(ROOT / "examples" / "reading_newspaper.mp4")]
        + ["--labels", "daily-living", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["error"] is None
    assert len(answer["predictions"]) == 5
    where = subprocess.run(
        [sys.executable, "-c", "import clipact; print(clipact.__file__)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(site)
