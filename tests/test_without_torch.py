"""What does without torch: everything but the models of torch, training and its losses."""

import ast
import subprocess
import sys
from pathlib import Path

import clipact

PACKAGE = Path(clipact.__file__).parent
OF_TORCH = ("models/", "train/", "losses/", "engines/torch")
"""What begins so below the package is torch's own."""


def _imports_at_load(body):
    """The modules that statements import when their file is loaded: those of functions come later."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from _imports_at_load(node.orelse)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        else:
            yield from _imports_at_load(ast.iter_child_nodes(node))


def _torch_imports(text):
    return [name for name in _imports_at_load(ast.parse(text).body) if name.partition(".")[0] == "torch"]


def test_the_search_finds_what_is_loaded_and_leaves_what_is_not():
    assert _torch_imports(
        "import torch.nn as nn\n"
        "try:\n    from torch import Tensor\nexcept ImportError:\n    import torch.cpu\n"
        "if TYPE_CHECKING:\n    import torch.cuda\n"
        "class One:\n    import torch.fx\n    def later(self):\n        import torch.jit\n"
        "import torchcodec\n"
    ) == ["torch.nn", "torch", "torch.cpu", "torch.fx"]


def test_torch_is_imported_at_load_by_its_own_packages_alone():
    found = {
        path.relative_to(PACKAGE).as_posix(): names
        for path in sorted(PACKAGE.rglob("*.py"))
        if (names := _torch_imports(path.read_text(encoding="utf-8")))
    }
    assert found, "the models of torch import it"
    assert not [name for name in found if not name.startswith(OF_TORCH)]


_USE = """
import sys
from contextlib import nullcontext
from importlib import import_module
from pkgutil import walk_packages


class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("torch is not there", name=name)


sys.meta_path.insert(0, NoTorch())

import clipact

loaded = []
for module in walk_packages(clipact.__path__, "clipact."):
    name = module.name.removeprefix("clipact.") + "."
    if not name.startswith(("models.", "train.", "losses.", "engines.torch", "studies.compare.")):  # these train
        import_module(module.name)
        loaded.append(name)
assert {"classify.zero_shot.", "cli.app.", "evaluate.run.", "studies.lint.", "video.load."} <= {*loaded}

from pathlib import Path

import numpy as np

from clipact.cache import Cache
from clipact.classify.from_index import IndexClassifier
from clipact.classify.prediction import Prediction
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.clip_spec import ClipSpec
from clipact.engines.clip_encoder import ClipEncoder
from clipact.engines.engine import Engine
from clipact.engines.vectors import unit
from clipact.evaluate.results import ClassificationResult
from clipact.label_index import IndexMetadata, LabelIndex, build_index
from clipact.label_index.entry_sources import read_entries, sentence_encoder
from clipact.prompts import PromptSet
from clipact.report import render_page
from clipact.studies.lint import lint


class Letters(Engine):
    "Sentences by how often each letter stands in them; clips by their first bytes."

    name, key, trained_on, license, folder, labels = "letters", "ab" * 32, (), "", None, ()
    spec, dim, scale, bias, precision, device = ClipSpec(frames=2, size=(4, 4)), 26, 20.0, None, "fp32", "cpu"
    text_depends_on_video, order_free = False, True

    def text_features(self, sentences, *, progress=None):
        letters = "abcdefghijklmnopqrstuvwxyz"
        return np.array([[text.lower().count(letter) for letter in letters] for text in sentences], np.float32)

    def encode_text(self, sentences, *, progress=None):
        return unit(self.text_features(sentences))

    def prompt(self, context, text):
        raise NotImplementedError

    def tokenize(self, sentences):
        return np.array([list(text.encode().ljust(99)[:99]) for text in sentences], np.int64)

    def clip_encoder(self, spec=None, *, clips=1, crops=1, decoder="pyav"):
        return ClipEncoder(
            spec=spec or self.spec, clips=clips, crops=crops, decoder=decoder, by_frame=False, frames_at_once=8,
            key=lambda: self.key, identity=self.key, on_cpu=True, threads=lambda count: nullcontext(), head=unit,
            encode=lambda frames: frames.reshape(len(frames), -1)[:, :26].astype(np.float32),
        )


engine, folder = Letters(), Path(sys.argv[1])
print(Prediction(labels=("drink", "read"), scores=np.array([0.25, 0.75], np.float32), model="m", prompts=""))
cache = Cache(folder / "cache")
classifier = ZeroShotClassifier(engine, ["drink water", "read a book", "fall"], cache=cache)
said = classifier.answer(engine.encode_text(["A person is drinking water.", "A man is drinking water."]))
print(said.label, said.agreement.agreeing)
frames = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
print(len(classifier.classify_frames(frames).ranked))
prompts, source = PromptSet.load("bare"), read_entries("weizmann")
about = IndexMetadata(model=engine.name, model_key=engine.key, wording="bare", dim=26)
build_index(folder / "i", source.entries, sentence_encoder(engine, source, prompts), metadata=about)
index = LabelIndex.open(folder / "i", model_key=engine.key)
print(index.search_exactly(engine.encode_text(["jumping jack"]), 3).nearest.rows.shape)
print(IndexClassifier(engine, index).answer(engine.encode_text(["walking"])).score > 0.2)
print(len(lint(classifier.label_set, prompts, engine, cache=cache).closest))
result = ClassificationResult(
    samples=("a", "b"), labels=("drink", "read"), truth=np.array([0, 1]), scores=np.eye(2, dtype=np.float32),
    run={"model": {"name": "letters"}, "zero_shot": None, "zero_shot_why": "", "data": {"set": ""}}, seconds={},
)
print("<html" in render_page([result]))
assert "torch" not in sys.modules
"""


def test_classifiers_an_index_and_a_report_do_without_torch(tmp_path):
    command = [sys.executable, "-c", _USE, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert lines[:3] == ["frames", "  read    75.0%", "  drink   25.0%"]
    assert lines[3:] == ["drink water 2", "3", "(1, 3)", "True", "3", "True"]
