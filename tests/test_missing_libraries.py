"""Without open_clip, timm, transformers, faiss or torchvision: one sentence that names the install, and mini works."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from clipact.clip_spec import ClipSpec
from clipact.errors import INSTALLS, MissingLibraryError, import_library
from clipact.models.checkpoint import load_checkpoint
from clipact.models.dual_encoder import DualEncoder
from clipact.models.hub.timm import TimmImage
from clipact.models.save_checkpoint import save_model
from clipact.models.towers.frame_aggregator import FrameAggregator
from clipact.models.towers.swin3d import Swin3D
from clipact.models.towers.tower import Head
from tests.tiny import tiny_checkpoint
from tests.tiny_transformers import transformers_folder

# A process of its own, for this one has them all imported already. Each line of its input is a command.
_BLOCKED = """
import contextlib, io, json, sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None
from clipact.cli.app import main
for line in sys.stdin.read().splitlines():
    sys.argv, out, err = ["clipact", *json.loads(line)], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main() or 0
        except SystemExit as stopped:
            code = stopped.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def run_without(libraries, *commands):
    """Exit code, stdout and stderr of each command where the libraries cannot be imported."""
    lines = "\n".join(json.dumps([str(word) for word in words]) for words in commands)
    command = [sys.executable, "-c", _BLOCKED, ",".join(libraries)]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def _model_with(visual, folder):
    encoder = load_checkpoint(tiny_checkpoint(folder.parent / f"{folder.name}.whole"))
    return save_model(DualEncoder(visual, encoder.text, log_scale=3.0), folder, name="small", trained_on=("nothing",))


def _timm_model(tmp_path, videos):
    image = TimmImage(TimmImage.Config(name="test_vit", settings={"img_size": 32}, head=Head.Config(dim=16, blocks=0)))
    return (
        "classify",
        videos / "a.mp4",
        "--labels",
        "a,b",
        "--model",
        _model_with(FrameAggregator(image), tmp_path / "m"),
    )


def _swin(tmp_path, videos):
    config = Swin3D.Config(width=8, depths=(2, 2), heads=(1, 2), window=(8, 4, 4), head=Head.Config(dim=16, blocks=0))
    torch.manual_seed(0)
    model = _model_with(Swin3D(config, spec=ClipSpec(frames=4, size=(32, 32))), tmp_path / "m")
    return "classify", videos / "a.mp4", "--labels", "a,b", "--model", model


def _transformers_model(tmp_path, videos):
    model = f"transformers:{transformers_folder(tmp_path / 'clip', 'clip')}"
    return "classify", videos / "a.mp4", "--labels", "a,b", "--model", model


def _open_clip_model(tmp_path, videos):
    return "classify", videos / "a.mp4", "--labels", "a,b", "--model", "open_clip:ViT-B-32/openai"


def _faiss_index(tmp_path, videos):
    (tmp_path / "verbs.txt").write_text("drink\nread\n")
    return "index", "build", tmp_path / "verbs.txt", "--out", tmp_path / "i", "--kind", "hnsw"


@pytest.mark.parametrize(
    ("library", "command"),
    [
        ("open_clip", _open_clip_model),
        ("timm", _timm_model),
        ("transformers", _transformers_model),
        ("torchvision", _swin),
        ("faiss", _faiss_index),
    ],
)
def test_a_missing_library_is_one_sentence_with_the_install(library, command, tmp_path, videos):
    ((code, out, err),) = run_without([library], command(tmp_path, videos))
    said = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert said == [f"error: {library} is not installed: pip install '{INSTALLS[library]}'"]
    assert (code, out) == (1, "")


def test_mini_needs_none_of_them(videos, tmp_path):
    (tmp_path / "verbs.txt").write_text("drink\nread\n")
    index = ("index", "build", tmp_path / "verbs.txt", "--out", tmp_path / "i")
    classify = ("classify", videos / "a.mp4", "--labels", "drink,read")
    done = run_without(INSTALLS, ["--help"], ["models", "list", tmp_path], classify, index)
    assert [code for code, _, _ in done] == [0] * 4, done
    assert "mini" in done[1][1]
    assert "drink" in done[2][1]


def test_what_is_installed_is_what_the_package_asks_for():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = {f"clipact[{name}]": wanted for name, wanted in project["optional-dependencies"].items()}
    for library, wanted in INSTALLS.items():
        asked = extras[wanted] if wanted in extras else [line for line in project["dependencies"] if line == wanted]
        assert any(line.replace("_torch", "").replace("-cpu", "").startswith(f"{library}>=") for line in asked), library


def test_a_library_that_needs_a_missing_one_names_that_one(monkeypatch, tmp_path):
    (tmp_path / "needs_faiss.py").write_text("import faiss")
    (tmp_path / "needs_another.py").write_text("import no_such_library")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingLibraryError, match="faiss is not installed"):
        import_library("needs_faiss")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        import_library("needs_another")
