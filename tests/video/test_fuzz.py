"""A small part of the fuzzing that eval/fuzz_video.py does at length."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clipact.video.load import load_clip

_PATH = Path(__file__).parents[2] / "eval" / "fuzz_video.py"


@pytest.fixture(scope="module")
def fuzz_video():
    module_spec = importlib.util.spec_from_file_location("fuzz_video", _PATH)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


def test_spoilt_files_give_frames_or_an_error_of_ours():
    done = subprocess.run([sys.executable, str(_PATH), "--count", "24", "--seed", "7"], capture_output=True, text=True)
    verdicts = json.loads(done.stdout)["verdicts"]
    assert done.returncode == 0, done.stdout
    assert set(verdicts) == {"frames", "error"}
    assert sum(verdicts.values()) == 24


def test_whole_files_give_frames(fuzz_video, tmp_path):
    for name in fuzz_video.SEEDS:
        path = tmp_path / name
        path.write_bytes(fuzz_video.draw_seed(tmp_path, name))
        assert len(load_clip(path)) == 8, name


def test_spoiling_spoils_and_follows_the_generator(fuzz_video):
    seed, other = bytes(range(256)) * 8, b"other" * 100
    once = [fuzz_video.spoil(seed, [other], np.random.default_rng(i)) for i in range(20)]
    again = [fuzz_video.spoil(seed, [other], np.random.default_rng(i)) for i in range(20)]
    assert once == again
    assert sum(data != seed for data in once) >= 19
