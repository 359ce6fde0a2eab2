"""Every kind of row becomes a recogniser of the same labels that sees the same frames, and is judged by one runner."""

import pytest

from clipact.clip_spec import ClipSpec
from clipact.errors import UsageError
from clipact.evaluate import evaluate, manifest_card, read_samples
from clipact.recognizer import Recognizer
from clipact.store import Store
from clipact.studies.contenders import Lesson, make_recognizer
from tests.data.drawing import write_manifest
from tests.training.small_run import small_model
from tests.video.drawing import draw_video

LABELS = ("bending", "waving")


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lesson")
    rows = []
    for number in range(6):
        draw_video(folder / f"{number}.mp4", frames=8 + number)
        split = "test" if number > 3 else "train"
        rows.append({"path": f"{number}.mp4", "label": LABELS[number % 2], "split": split})
    return Lesson(
        manifest=write_manifest(folder / "clips.csv", *rows),
        data=folder,
        clip=ClipSpec(frames=4, size=(16, 16)),
        trained_on=("drawn",),
        tables={"train": {"steps": 1, "batch": 4}},
        pretraining={"train": {"steps": 1, "batch": 4}, "mask": {"ratio": 0.75}},
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model") / "small")


@pytest.mark.parametrize("name", ["zero-shot:M", "probe:M", "nearest@1:M", "gru:M", "vivit-joint", "videomae"])
def test_a_name_becomes_a_recogniser(name, lesson, small, tmp_path):
    runs, how = [], {"out": tmp_path / "out", "device": "cpu", "store": Store(tmp_path / "store")}

    def follow(run, reports):
        runs.append(type(run).__name__)
        list(reports)

    recognizer = make_recognizer(name.replace("M", str(small)), lesson, follow=follow, **how)
    assert isinstance(recognizer, Recognizer)
    assert recognizer.labels == LABELS
    assert (recognizer.spec.frames, recognizer.spec.size) == (4, (16, 16))
    scores = evaluate(recognizer, read_samples(manifest_card(lesson.manifest, split="test"), lesson.data))
    assert scores.labels == LABELS
    assert scores.scores.shape == (2, 2)
    assert scores.run["zero_shot"] is (None if name == "zero-shot:M" else False)
    assert runs == {"gru:M": ["Run"], "vivit-joint": ["Run"], "videomae": ["Pretraining", "Run"]}.get(name, [])
    again = make_recognizer(name.replace("M", str(small)), lesson, follow=follow, **how)
    assert (again.labels, len(runs)) == (LABELS, len(set(runs))), "what is whole is not trained again"


def test_a_name_that_means_nothing_is_refused_before_anything_is_trained(lesson, tmp_path):
    with pytest.raises(UsageError, match="did you mean 'i3d'"):
        make_recognizer("i4d", lesson, out=tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()
