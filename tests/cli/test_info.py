import json
import os

import numpy as np
import pytest
from PIL import Image

from clipact.clip_spec import ClipSpec
from clipact.video.load import load_clip
from tests.video.drawing import draw_video


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return draw_video(tmp_path_factory.mktemp("video") / "numbers.mp4")


@pytest.fixture
def model(tmp_path):
    """A folder that says how its clips are prepared; `frames` needs no more of a model."""
    folder = tmp_path / "model"
    folder.mkdir()
    clip = {"frames": 6, "size": [40, 48], "resize": "squash", "sampling": "uniform"}
    config = {"format": 1, "name": "small", "visual": {}, "text": {}, "clip": clip, "dim": 8}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_info_tells_the_facts(clipact, video):
    done = clipact("info", video)
    assert done.code == 0
    assert str(video) in done.out
    assert "96 x 64" in done.out
    assert "4.000 s, 10 fps, 40 frames" in done.out


def test_info_answers_for_every_file_and_fails_when_one_is_bad(clipact, video, tmp_path):
    (tmp_path / "bad.mp4").write_text("words")
    done = clipact("info", "--json", video, tmp_path / "bad.mp4", video)
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 1
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert rows[0]["frames"] == 40
    assert "not a video" in rows[1]["error"]["message"]
    assert "bad.mp4" in clipact("info", tmp_path / "bad.mp4").err


def test_frames_draws_what_the_model_sees(clipact, video, model, tmp_path):
    out = tmp_path / "strip.png"
    done = clipact("frames", video, "--out", out, "--model", model)
    assert done.code == 0
    assert "6 frames" in done.out
    strip = np.asarray(Image.open(out))
    assert strip.shape == (40 + 24 + 6, 6 * (48 + 6) + 6, 3)
    spec = ClipSpec(frames=6, size=(40, 48), resize="squash", sampling="uniform")
    for place, frame in enumerate(load_clip(video, spec=spec).frames):
        left = 6 + place * 54
        assert np.array_equal(strip[6:46, left : left + 48], frame)


@pytest.mark.parametrize("command", ["info", "frames"])
def test_a_named_pipe_hangs_neither(clipact, model, tmp_path, command):
    os.mkfifo(tmp_path / "pipe.mp4")
    options = ("-o", tmp_path / "a.png", "-m", model) if command == "frames" else ()
    done = clipact(command, tmp_path / "pipe.mp4", *options)
    assert done.code == 1
    assert "a pipe or a device" in done.err


def test_frames_says_what_is_wrong(clipact, video, model, tmp_path):
    assert clipact("frames", tmp_path / "none.mp4", "-o", tmp_path / "a.png", "-m", model).code == 1
    assert "png" in clipact("frames", video, "-o", tmp_path / "a.xyz", "-m", model).err
    assert clipact("frames", video, "-o", tmp_path / "none" / "a.png", "-m", model).code == 2
    assert clipact("frames", video, "-o", tmp_path / "a.png", "-m", model, "--decoder", "vlc").code == 2
    done = clipact("frames", video, "-o", tmp_path / "a.png", "-m", model, "--from", "9")
    assert done.code == 1
    assert "4.000 seconds" in done.err


def test_neither_imports_torch(shell, video, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise RuntimeError('torch was imported')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert shell("info", video).returncode == 0


def test_the_command_line_takes_a_list(clipact, videos, tmp_path):
    (tmp_path / "list.txt").write_text(f"{videos}/a.mp4\n# no\n{videos}/b.mp4\n")
    done = clipact("info", f"@{tmp_path}/list.txt")
    assert done.code == 0, done.err
    assert [line for line in done.out.splitlines() if line.startswith("/")] == [f"{videos}/a.mp4", f"{videos}/b.mp4"]
    missing = clipact("info", f"@{tmp_path}/none.txt")
    assert missing.code == 2
    assert f"{tmp_path}/none.txt" in missing.err
