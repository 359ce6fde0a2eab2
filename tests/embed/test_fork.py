"""A process that has computed is forked, as web servers with workers do: the child answers, and alike."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import multiprocessing
import sys

import numpy as np
import torch

from clipact import embed_videos
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.embed.options import EmbedOptions

VIDEO = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8)
shared = None


def load():
    torch.set_num_threads(2)
    return ZeroShotClassifier.load("mini", labels=["drink", "read"])


def answer():
    classifier = shared or load()
    prediction = classifier.classify(VIDEO)
    embedding = embed_videos([VIDEO], classifier.model, options=EmbedOptions(workers=1, threads=2))
    text = classifier.model.encode_text([f"a person reads {number} books" for number in range(64)])
    return prediction.scores, embedding, text


if __name__ == "__main__":
    shared = load()
    ours = answer()
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        theirs = pool.apply_async(answer).get(timeout=300)
    for one, other in zip(ours, theirs, strict=True):
        assert np.allclose(one, other, rtol=0, atol=1e-6)
    print("alike")
"""


@pytest.mark.parametrize(
    "method",
    ["fork", pytest.param("forkserver", marks=pytest.mark.slow), pytest.param("spawn", marks=pytest.mark.slow)],
)
def test_a_child_of_a_process_that_has_computed_answers(method, tmp_path):
    script = tmp_path / "serve.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "CLIPACT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, script, method], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "alike"
