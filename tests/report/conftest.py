import numpy as np
import pytest

from clipact.evaluate.results import ClassificationResult, RetrievalResult
from tests.video.drawing import draw_video

SPITEFUL = "<script>alert('x')</script>\"&"


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder with the clips that the results name."""
    folder = tmp_path_factory.mktemp("report data")
    for number in range(3):
        draw_video(folder / f"{number}.mp4", frames=8)
    return folder


def some_scores(*, labels=6, count=60, seed=0, name="mini", **changes):
    """A result that is right about half the time, with a label and a file that would be markup."""
    random = np.random.default_rng(seed)
    words = (SPITEFUL, *(f"label {number}" for number in range(1, labels)))
    truth = random.integers(0, labels - 1, count)  # the last label has no sample
    scores = random.normal(size=(count, labels)).astype(np.float32)
    scores[np.arange(count), truth] += 2 * (random.random(count) < 0.5)
    values = {
        "samples": tuple(f"{number % 3}.mp4@0-{0.4 + number / 1000:.3f}" for number in range(count)),
        "labels": words,
        "truth": truth,
        "scores": scores,
        "groups": tuple(f"person {number // 6}" for number in range(count)),
        "unreadable": ((f"{SPITEFUL}.mp4", f"no video stream {SPITEFUL}"),),
        "run": {
            "command": f"clipact eval drawn --model {name}",
            "title": "Drawn",
            "model": {"name": name, "key": "0" * 64},
            "zero_shot": True,
            "partial": False,
        },
        "seconds": {"decode": 1.0, "encode": 2.5, "total": 4.0},
    }
    return ClassificationResult(**(values | changes))


def some_retrieval(*, count=12, seed=0):
    random = np.random.default_rng(seed)
    visual = random.normal(size=(count, 8)).astype(np.float32)
    text = np.repeat(visual, 2, axis=0) + random.normal(size=(2 * count, 8)).astype(np.float32)
    return RetrievalResult(
        samples=tuple(f"{number}.mp4" for number in range(count)),
        texts=tuple(f"sentence {number} {SPITEFUL}" for number in range(2 * count)),
        text_of=np.repeat(np.arange(count), 2),
        visual=visual / np.linalg.norm(visual, axis=1, keepdims=True),
        text=text / np.linalg.norm(text, axis=1, keepdims=True),
        run={
            "title": "Drawn retrieval",
            "model": {"name": "mini"},
            "zero_shot": False,
            "zero_shot_why": "trained on it",
        },
    )
