import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clipact import LabelSet, PromptSet, Recognizer, ZeroShotClassifier, load_clip, load_model
from clipact.cache import Cache
from clipact.errors import UsageError, VideoError
from clipact.models.dual_encoder import normalise_frames
from clipact.video.load import load_clips

LABELS = ["drink", "reading a book", "UseLaptop"]


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def classifier(tiny, cache):
    return ZeroShotClassifier.load(str(tiny), labels=LABELS, device="cpu", cache=cache)


def test_it_is_a_recognizer(classifier):
    assert isinstance(classifier, Recognizer)
    assert classifier.labels == tuple(LABELS)


def test_scores_equal_the_formula_written_out(tiny, videos, classifier):
    """softmax(scale · v·t), t the renormalised mean over the prompts, computed without the classifier."""
    encoder = load_model(str(tiny), device="cpu").encoder
    sentences, groups = PromptSet.load("action").sentences(LabelSet.of(LABELS))
    with torch.inference_mode():
        text = torch.stack(
            [
                F.normalize(
                    torch.stack(
                        [encoder.encode_text([s])[0] for s, g in zip(sentences, groups, strict=True) if g == i]
                    ).mean(0),
                    dim=0,
                )
                for i in range(len(LABELS))
            ]
        )
        clip = load_clip(videos / "a.mp4", spec=encoder.spec)
        video = encoder.encode_video(normalise_frames(clip.frames, encoder.spec)[None])[0]
        expected = (encoder.log_scale.exp() * text @ video).softmax(0)
    prediction = classifier.classify(videos / "a.mp4")
    got = {entry.label: entry.score for entry in prediction.ranked}
    for label, value in zip(LABELS, expected.tolist(), strict=True):
        assert got[label] == pytest.approx(value, abs=1e-6)
    assert prediction.label == max(got, key=got.get)
    assert prediction.frames == clip.stamps


def test_a_warm_cache_never_loads_the_text_tower(tiny, videos, cache):
    cold = ZeroShotClassifier.load(str(tiny), labels=LABELS, device="cpu", cache=cache)
    assert cold.model.encoder.text.loaded
    warm = ZeroShotClassifier.load(str(tiny), labels=LABELS, device="cpu", cache=cache)
    first, second = cold.classify(videos / "a.mp4"), warm.classify(videos / "a.mp4")
    assert not warm.model.encoder.text.loaded
    assert first == second
    other = ZeroShotClassifier.load(str(tiny), labels=LABELS, prompts="bare", cache=cache)
    assert other.model.encoder.text.loaded, "other sentences are other entries"


def test_frames_from_memory_are_frames_from_the_file(videos, classifier):
    clip = load_clip(videos / "a.mp4", frames=4)
    from_memory = classifier.classify_frames(clip.frames)
    assert from_memory.ranked == classifier.classify(videos / "a.mp4").ranked
    assert from_memory.video is None


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((4, 8, 8, 3), np.float32),
        np.zeros((4, 3, 8, 8), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
)
def test_frames_of_another_kind_are_refused(classifier, frames):
    with pytest.raises((UsageError, TypeError), match=r"uint8|frames"):
        classifier.classify_frames(frames)


def test_several_clips_are_averaged_as_embeddings(tiny, videos, cache):
    classifier = ZeroShotClassifier.load(str(tiny), labels=LABELS, clips=2, device="cpu", cache=cache)
    encoder = classifier.model.encoder
    prediction = classifier.classify(videos / "a.mp4")
    with torch.inference_mode():
        halves = torch.stack(
            [
                normalise_frames(load_clip(videos / "a.mp4", start, end, spec=encoder.spec).frames, encoder.spec)
                for start, end in ((0.0, 1.0), (1.0, 2.0))
            ]
        )
        video = F.normalize(encoder.encode_video(halves).mean(0), dim=0)
        expected = (encoder.scale * torch.from_numpy(classifier.text_embeddings) @ video).softmax(0)
    got = [{e.label: e.score for e in prediction.ranked}[label] for label in LABELS]
    assert got == pytest.approx(expected.tolist(), abs=1e-6)
    assert len(prediction.frames) == 2 * encoder.spec.frames


def test_many_paths_in_order_with_errors_in_their_place(videos, classifier):
    paths = [videos / "a.mp4", videos / "notes.txt", videos / "b.mp4"] * 3
    answers = list(classifier.classify_many(paths))
    assert [isinstance(a, VideoError) for a in answers] == [False, True, False] * 3
    assert answers[0] == classifier.classify(paths[0])
    assert answers[2] == classifier.classify(paths[2])
    assert str(paths[1]) in str(answers[1])


def test_a_prediction_prints_its_best_labels_first(videos, classifier):
    prediction = classifier.classify(videos / "a.mp4")
    lines = str(prediction).splitlines()
    assert lines[0] == str(videos / "a.mp4")
    assert prediction.label in lines[1]
    assert prediction.top(2) == prediction.ranked[:2]
    assert prediction.top(99) == prediction.ranked
    assert prediction.score == prediction.ranked[0].score


def test_each_view_answers_as_it_would_by_itself(videos, tiny, cache):
    whole = ZeroShotClassifier.load(str(tiny), labels=LABELS, clips=3, frames=2, device="cpu", cache=cache)
    found = whole.classify(videos / "a.mp4").agreement
    clips = load_clips(videos / "a.mp4", whole.spec, clips=3)
    assert found.views == tuple(whole.classify_frames(clip.frames).label for clip in clips)
    assert whole.classify_frames(clips[0].frames).agreement is None
