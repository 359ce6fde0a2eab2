import gc
import os
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clipact.classify.from_index import IndexClassifier
from clipact.classify.prediction import Prediction
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.data.fingerprint import file_digest
from clipact.data.protocol import ProtocolWords
from clipact.embed import embed_clips as room
from clipact.errors import ClipactError, DataError, ManifestError, ModelError, UsageError, VideoError
from clipact.evaluate import (
    EvalOptions,
    EvalSample,
    evaluate,
    evaluate_retrieval,
    evaluate_wordings,
    manifest_protocol,
    read_samples,
)
from clipact.evaluate.metric_values import metric_values
from clipact.evaluate.results import identical, zero_shot_status
from clipact.evaluate.samples import files_digest
from clipact.label_index import IndexEntry, IndexMetadata, build_index
from clipact.models import zoo
from clipact.models.dual_encoder import DualEncoder, normalise_frames
from clipact.models.save_checkpoint import save_model as save_model
from clipact.models.towers.frame_aggregator import FrameAggregator
from clipact.models.zoo import load_model as load_model
from clipact.prompts import PromptSet
from clipact.video.load import load_clips
from tests.evaluate.conftest import LABELS


@pytest.fixture
def samples(tree):
    return read_samples(manifest_protocol(tree / "table.csv"), tree)


def straight_loop(classifier, samples, *, averaging="embeddings", crops=1):
    """One file after the other, no thread, no batch, no cache: what every other way must equal."""
    encoder, rows = classifier.model.encoder, {}
    text = torch.from_numpy(classifier.text_embeddings)
    for item in samples.items:
        try:
            clips = load_clips(item.path, classifier.spec, clips=classifier.clips, crops=crops)
        except VideoError:
            continue
        with torch.inference_mode():
            video = torch.cat([encoder.encode_video(normalise_frames(c.frames, classifier.spec)[None]) for c in clips])
            if averaging == "embeddings":
                logits = encoder.scale * F.normalize(video.mean(0), dim=0) @ text.T
            else:
                logits = encoder.scale * video @ text.T
                logits = logits.mean(0) if averaging == "logits" else logits.softmax(1).mean(0).log()
        rows[item.name] = logits.numpy()
    return rows


@pytest.mark.parametrize(("workers", "frames_at_once"), [(1, 1), (2, 8), (4, 12), (3, 400)])
@pytest.mark.parametrize("backwards", [False, True])
def test_logits_equal_a_straight_loops(classifier, samples, workers, frames_at_once, backwards):
    expected = straight_loop(classifier, samples)
    if backwards:
        samples = replace(samples, items=samples.items[::-1])
    found = evaluate(classifier, samples, options=EvalOptions(workers=workers, frames_at_once=frames_at_once))
    assert found.samples == tuple(item.name for item in samples.items if item.name in expected)
    for name, row in zip(found.samples, found.scores, strict=True):
        np.testing.assert_allclose(row, expected[name], atol=1e-5, rtol=0)
    assert found.labels == LABELS
    assert [LABELS[i] for i in found.truth] == [item.label for item in samples.items if item.name in expected]


@pytest.mark.parametrize(("shift", "pictures"), [(0.0, 1), (0.0, 3), (0.125, 1)])
def test_frames_seen_in_pieces_are_the_frames_seen_together(classifier, samples, shift, pictures, monkeypatch):
    """A CPU takes a few pictures at once; where frames see their neighbours, a clip."""
    visual = classifier.model.encoder.visual
    shifted = (
        FrameAggregator(visual.image, FrameAggregator.Config(shift=shift), spec=visual.spec).eval() if shift else visual
    )
    encoder = DualEncoder(shifted, classifier.model.encoder.text, log_scale=3.0).eval()
    judging = ZeroShotClassifier(replace(classifier.model, encoder=encoder), LABELS)
    expected = straight_loop(judging, samples)
    monkeypatch.setattr(visual.image, "at_once", pictures)
    for at_once in (4, 20):
        found = evaluate(judging, samples, options=EvalOptions(frames_at_once=at_once))
        np.testing.assert_allclose(found.scores, np.stack([expected[n] for n in found.samples]), atol=1e-5, rtol=0)


def test_the_number_of_torchs_threads_is_as_it_was(classifier, samples):
    before = torch.get_num_threads()
    evaluate(classifier, samples, options=EvalOptions(workers=3))
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError):
        evaluate(
            classifier, samples, options=EvalOptions(progress=lambda items, total, description: [next(items), 1 / 0])
        )
    gc.collect()
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("averaging", ["embeddings", "logits", "probabilities"])
@pytest.mark.parametrize(("clips", "crops"), [(3, 1), (2, 3)])
def test_views_are_averaged_as_is_said(tiny, cache, samples, averaging, clips, crops):
    classifier = ZeroShotClassifier.load(str(tiny), labels=LABELS, clips=clips, device="cpu", cache=cache)
    expected = straight_loop(classifier, samples, averaging=averaging, crops=crops)
    found = evaluate(classifier, samples, averaging=averaging, crops=crops, options=EvalOptions(frames_at_once=20))
    np.testing.assert_allclose(found.scores, np.stack([expected[name] for name in found.samples]), atol=1e-5, rtol=0)
    assert (found.run["views"]["averaging"], found.run["views"]["crops"]) == (averaging, crops)


def test_an_unreadable_file_is_named_and_nobody_takes_its_place(classifier, samples):
    found = evaluate(classifier, samples)
    ((name, cause),) = found.unreadable
    assert name == "videos/05.mp4"
    assert "not a video" in cause
    assert len(found.samples) == 13
    assert name not in found.samples
    assert found.run["partial"]
    assert "1 of 14 files" in found.run["partial_why"][0]


def test_nothing_readable_is_an_error(classifier, tmp_path):
    (tmp_path / "a.mp4").write_text("no")
    with pytest.raises(DataError, match="not one of 1 files"):
        evaluate(classifier, [EvalSample(name="a.mp4", path=tmp_path / "a.mp4", label="waving")])


def test_a_label_that_the_model_does_not_know_is_refused(classifier, tree):
    with pytest.raises(UsageError, match="'wavin'.*did you mean 'waving'"):
        evaluate(classifier, [EvalSample(name="a", path=tree / "videos/00.mp4", label="wavin")])


def test_from_the_store_nothing_is_decoded_or_encoded_again(classifier, samples, cache, tiny, monkeypatch):
    first = evaluate(classifier, samples, options=EvalOptions(cache=cache))

    def refuse(path, *_, **__):
        raise VideoError(path, "it was decoded again")

    monkeypatch.setattr(room, "collect_frames", refuse)
    again = evaluate(classifier, samples, options=EvalOptions(cache=cache, workers=1, frames_at_once=100))
    assert again.samples == first.samples
    np.testing.assert_array_equal(again.scores, first.scores)
    assert again.run["views"]["decoded_by"] == first.run["views"]["decoded_by"]
    other = ZeroShotClassifier.load(str(tiny), labels=LABELS[::-1], prompts="bare", device="cpu", cache=cache)
    words = evaluate(other, samples, options=EvalOptions(cache=cache))
    assert words.samples == first.samples
    assert {path.name for path in cache.root.iterdir()} == {"frames", "sentences", "sentence_names", "claims"}
    assert len([path for path in cache.root.glob("frames/*/*") if path.is_file()]) == 12  # one of thirteen is a copy
    assert words.unreadable == ((samples.items[5].name, "it was decoded again"),)


@pytest.mark.parametrize("change", ["frames", "sampling", "views", "crops", "bytes", "model"])
def test_what_would_give_other_embeddings_is_not_taken_from_the_store(
    classifier, samples, cache, tiny, tmp_path, monkeypatch, change
):
    from tests.tiny import tiny_checkpoint

    evaluate(classifier, samples, options=EvalOptions(cache=cache))
    decoded = []
    real = room.collect_frames
    monkeypatch.setattr(room, "collect_frames", lambda path, *a, **k: decoded.append(path) or real(path, *a, **k))
    options, crops, folder = {}, 1, tiny
    if change == "frames":
        options = {"frames": 3}
    elif change == "sampling":
        options = {"spec": replace(classifier.spec, sampling="uniform")}
    elif change == "views":
        options = {"clips": 2}
    elif change == "crops":
        crops = 3
    elif change == "bytes":
        path = tmp_path / "00.mp4"
        path.write_bytes(samples.items[0].path.read_bytes() + b"\0")
        samples = replace(samples, items=(replace(samples.items[0], path=path),))
    else:
        folder = tiny_checkpoint(tmp_path / "other", seed=1)
    other = ZeroShotClassifier.load(str(folder), labels=LABELS, device="cpu", cache=cache, **options)
    evaluate(other, samples, crops=crops, options=EvalOptions(cache=cache))
    assert len(decoded) == max(1, len(samples) - 1)  # of two that are alike one waits for the other


def test_another_head_on_the_same_body_decodes_and_encodes_nothing(
    classifier, samples, cache, tiny, tmp_path, monkeypatch
):
    """Frames' features are kept by the body's weights: ablations of heads and aggregators share them."""
    first = evaluate(classifier, samples, options=EvalOptions(cache=cache))
    encoder = load_model(str(tiny), device="cpu").encoder
    with torch.no_grad():
        for weights in encoder.visual.image.head.parameters():
            weights.add_(0.1 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(0)))
    save_model(encoder, tmp_path / "other", name="other", card="# other\n")
    other = ZeroShotClassifier.load(str(tmp_path / "other"), labels=LABELS, device="cpu", cache=cache)
    expected = evaluate(other, samples)

    def refuse(path, *_, **__):
        raise VideoError(path, "it was decoded or encoded again")

    monkeypatch.setattr(other.model.encoder.visual.image, "features", refuse)
    monkeypatch.setattr(room, "collect_frames", refuse)
    found = evaluate(other, samples, options=EvalOptions(cache=cache))
    assert found.samples == expected.samples
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5, rtol=0)
    assert found.run["views"]["decoded_by"] == expected.run["views"]["decoded_by"]
    assert np.abs(found.scores - first.scores).max() > 1e-3


def test_a_store_that_cannot_be_written_costs_a_warning_only(classifier, samples, tmp_path):
    from clipact.cache import Cache

    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot be used") as seen:
        found = evaluate(classifier, samples, options=EvalOptions(cache=Cache(tmp_path / "file")))
    assert len(seen) == 1
    assert identical(found, evaluate(classifier, samples))


def test_groups_come_from_the_column_that_the_protocol_names(classifier, tree):
    protocol = manifest_protocol(tree / "table.csv")
    assert evaluate(classifier, read_samples(protocol, tree)).groups is None
    protocol = replace(protocol, data=replace(protocol.data, group="person"))
    groups = evaluate(classifier, read_samples(protocol, tree)).groups
    assert groups == tuple(f"p{number // 2}" for number in range(14) if number != 5)


def test_everything_that_repeats_the_run_is_said(classifier, samples):
    run = evaluate(classifier, samples, options=EvalOptions(run={"protocol": "own", "metric": "top_1"})).run
    assert run["protocol"] == "own"
    assert run["model"]["key"] == classifier.model.key
    assert run["prompts"]["templates"][0] == "A person is {}."
    assert run["views"]["frames"] == 4
    assert run["views"]["decoder"].startswith("pyav ")
    assert run["data"]["count"] == 14
    assert len(run["data"]["files_sha256"]) == 64
    assert torch.__version__.startswith(run["versions"]["torch"])
    assert run["seed"] == 0
    assert run["command"] == shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    assert run["folder"] == str(Path.cwd())
    assert run["machine"]["cores"] == os.cpu_count()
    assert run["machine"]["device"] == "cpu"
    assert {"clipact", "python", "torch", "numpy", "av", "pillow", "timm"} <= set(run["versions"])


def test_files_that_the_model_learnt_from_are_found_by_their_bytes(classifier, samples, cache, tiny, tmp_path):
    """Whatever a table is called and wherever its files lie: two of them were trained on."""
    shutil.copytree(tiny, tmp_path / "model")
    seen = [file_digest(samples.items[i].path) for i in (0, 3)]
    lines = ["path,sha256", *(f"elsewhere/{digest[:5]}.mp4,{digest}" for digest in seen), f"other.mp4,{'0' * 64}"]
    (tmp_path / "model/trained_on.csv").write_text("\n".join(lines) + "\n")
    learnt = ZeroShotClassifier.load(str(tmp_path / "model"), labels=LABELS, device="cpu", cache=cache)
    run = evaluate(learnt, samples).run
    assert run["zero_shot"] is False
    assert (
        zero_shot_status(run) == "not zero-shot: trained on 2 of these 12 files"
    )  # one of fourteen is broken, one a copy
    assert evaluate(classifier, samples).run["zero_shot"] is None
    (tmp_path / "model/trained_on.csv").write_text("file\nx\n")
    with pytest.raises(ModelError, match="columns path and sha256"):
        evaluate(learnt, samples)


class Guesser:
    """A recogniser of another kind: it knows labels and files, nothing of embeddings."""

    labels = LABELS

    def classify(self, path):
        raise NotImplementedError

    def classify_frames(self, frames):
        raise NotImplementedError

    def classify_many(self, paths):
        for path in paths:
            if path.name == "03.mp4":
                yield VideoError(path, "broken")
            else:
                yield Prediction(labels=("bending", "waving", "jumping"), scores=np.array([0.7, 0.3, 0.0], np.float32),
                                 model="guess", prompts="", video=str(path))  # fmt: skip


def test_any_recognizer_is_judged_by_its_predictions(samples):
    found = evaluate(Guesser(), samples)
    assert found.unreadable == (("videos/03.mp4", "broken"),)
    np.testing.assert_allclose(np.exp(found.scores[0]), [0.3, 0.0, 0.7], atol=1e-6)
    assert np.isfinite(found.scores).all()
    digests = {item.name: file_digest(item.path) for item in samples.items if item.name != "videos/03.mp4"}
    assert found.run["data"]["files_sha256"] == files_digest([item.name for item in samples.items], digests)


@pytest.mark.parametrize("wrong", ["averaging", "crops", "cache", "journal", "resume", "workers", "frames_at_once"])
def test_what_a_recognizer_of_another_kind_cannot_do_is_refused(samples, cache, tmp_path, wrong):
    words = {"averaging": {"averaging": "logits"}, "crops": {"crops": 3}}
    options = {"cache": cache, "journal": tmp_path / "j", "resume": True, "workers": 2, "frames_at_once": 8}
    options = words.get(wrong) or {"options": EvalOptions(**{wrong: options[wrong]})}
    with pytest.raises(UsageError, match="Guesser is asked file by file"):
        evaluate(Guesser(), samples, **options)


def test_an_index_is_of_a_model_that_says_what_it_learnt(classifier, samples, tiny, tmp_path):
    model = load_model(str(tiny), device="cpu")
    about = IndexMetadata(model=model.name, model_key=model.key, wording="bare", dim=model.encoder.dim)
    index = build_index(
        tmp_path / "index",
        [IndexEntry(id=label, text=label) for label in LABELS],
        lambda entries: model.encoder.encode_text([one.text for one in entries]).detach().numpy(),
        metadata=about,
    )
    found = evaluate(IndexClassifier(model, index), replace(samples, data=dict(samples.data) | {"set": "nothing"}))
    assert zero_shot_status(found.run) == "not zero-shot: trained on nothing"
    assert found.run["model"]["key"] == model.key


def test_a_model_whose_texts_depend_on_the_video_is_refused(classifier, samples, monkeypatch):
    monkeypatch.setattr(type(classifier.model.encoder), "text_depends_on_video", True)
    with pytest.raises(ClipactError, match="depend"):
        evaluate(classifier, samples)


def test_a_gpus_way_finds_the_same(classifier, samples, cache, monkeypatch):
    """Workers decode file by file, and whoever asks encodes, some files a batch."""
    expected = straight_loop(classifier, samples)
    real, batches = zoo.make_clip_encoder, []

    def make(*words, **options):
        made = real(*words, **options)
        encode = made.encode
        return replace(made, on_cpu=False, encode=lambda clips: batches.append(len(clips)) or encode(clips))

    monkeypatch.setattr(zoo, "make_clip_encoder", make)
    found = evaluate(classifier, samples, options=EvalOptions(frames_at_once=16, workers=3, cache=cache))
    assert batches == [16, 12, 12, 8]  # units of four clips; one is broken, and one is a copy of one before
    np.testing.assert_allclose(found.scores, np.stack([expected[n] for n in found.samples]), atol=1e-5, rtol=0)
    assert found.seconds["encode"] > 0 < found.seconds["decode"]
    again = evaluate(classifier, samples, options=EvalOptions(frames_at_once=16, cache=cache))
    assert identical(again, found)
    assert len(batches) == 4


def test_parts_of_a_file_are_samples_of_their_own(classifier, tree, tmp_path, cache):
    (tmp_path / "parts.csv").write_text(
        "path,label,start_seconds,end_seconds\nvideos/00.mp4,waving,,0.4\nvideos/00.mp4,jumping,0.6,1.1\n"
    )
    samples = read_samples(manifest_protocol(tmp_path / "parts.csv"), tree)
    for _ in range(2):
        found = evaluate(classifier, samples, options=EvalOptions(cache=cache))
        assert found.samples == ("videos/00.mp4@0-0.4", "videos/00.mp4@0.6-1.1")
        for row, span in zip(found.scores, ((None, 0.4), (0.6, 1.1)), strict=True):
            (clip,) = load_clips(tree / "videos/00.mp4", classifier.spec, start_seconds=span[0], end_seconds=span[1])
            with torch.inference_mode():
                video = classifier.model.encoder.encode_video(normalise_frames(clip.frames, classifier.spec)[None])
                logits = classifier.model.scale * video.numpy() @ classifier.text_embeddings.T
            np.testing.assert_allclose(row, logits[0], atol=1e-5, rtol=0)


def test_any_of_several_true_labels_is_right(classifier, tree, tmp_path, cache):
    rows = [f"videos/{number:02}.mp4,waving,{'jumping|bending' * (number % 2)}" for number in range(6)]
    (tmp_path / "several.csv").write_text("\n".join(["path,label,extra_labels", *rows]) + "\n")
    samples = read_samples(manifest_protocol(tmp_path / "several.csv"), tree)
    found = evaluate(classifier, samples, options=EvalOptions(cache=cache))
    waving = np.array(found.labels) == "waving"
    several = np.array([int(Path(name).stem) % 2 == 1 for name in found.samples])
    assert {True, False} == set(several.tolist())
    np.testing.assert_array_equal(found.multi_truth, waving | several[:, None])
    answered = found.scores.argmax(1) == waving.argmax()
    assert metric_values(found)[0].value == pytest.approx((answered | several).mean())
    (tmp_path / "wrong.csv").write_text("path,label,extra_labels\nvideos/00.mp4,waving,dancing\n")
    protocol = replace(manifest_protocol(tmp_path / "wrong.csv"), words=ProtocolWords(names=("waving", "jumping")))
    with pytest.raises(ManifestError, match="'dancing' is none of protocol"):
        read_samples(protocol, tree)


def test_the_classifiers_decoder_decodes(classifier, samples, monkeypatch):
    used = []
    real = room.collect_frames

    def collect(source, wanted, *words, **options):
        used.append(wanted.decoder)
        return real(source, replace(wanted, decoder="pyav"), *words, **options)

    monkeypatch.setattr(room, "collect_frames", collect)
    classifier.decoder = "another"
    evaluate(classifier, samples)
    assert set(used) == {"another"}


def test_retrieval_gives_the_embeddings_of_both_sides(tiny, tree, cache):
    (tree / "captions.csv").write_text(
        "path,caption\nvideos/00.mp4,one waves\nvideos/00.mp4,a wave\nvideos/05.mp4,lost\nvideos/01.mp4,a jump\n"
    )
    model = load_model(str(tiny), device="cpu")
    samples = read_samples(manifest_protocol(tree / "captions.csv"), tree)
    found = evaluate_retrieval(model, samples, options=EvalOptions(cache=cache))
    assert found.texts == ("one waves", "a wave", "a jump")
    assert found.text_of.tolist() == [0, 0, 1]
    assert found.unreadable[0][0] == "videos/05.mp4"
    with torch.inference_mode():
        clip = load_clips(tree / "videos/01.mp4", model.encoder.spec)[0]
        visual = model.encoder.encode_video(normalise_frames(clip.frames, model.encoder.spec)[None])
        text = model.encoder.encode_text(["a jump"])
    np.testing.assert_allclose(found.visual[1], visual[0].numpy(), atol=1e-6)
    np.testing.assert_allclose(found.text[2], text[0].numpy(), atol=1e-6)


def test_many_wordings_on_one_encoding_equal_each_alone(tiny, cache, samples, monkeypatch):
    words = [
        PromptSet.load("action"),
        PromptSet.load("bare").worded(names="verbatim"),
        PromptSet.load("single").worded(over_templates="probabilities"),
        PromptSet.load("actionclip").worded(over_templates="weighted"),
    ]
    model = load_model(str(tiny), device="cpu")
    classifiers = [ZeroShotClassifier(model, LABELS, prompts=one, clips=2, cache=cache) for one in words]
    alone = [evaluate(one, samples) for one in classifiers]
    decoded = []
    real = room.collect_frames
    monkeypatch.setattr(room, "collect_frames", lambda path, *a, **k: decoded.append(path) or real(path, *a, **k))
    together = list(evaluate_wordings(classifiers, samples))
    assert len(decoded) == len(samples)
    assert all(map(identical, alone, together))
    assert [one.run["prompts"]["wording"]["names"] for one in together] == ["phrases", "verbatim", "phrases", "phrases"]
    weights = together[-1].run["prompts"]["weights"]
    assert sum(weights) == pytest.approx(1)
    assert len(weights) == 16
    with pytest.raises(UsageError, match="the same model, frames"):
        next(evaluate_wordings([classifiers[0], ZeroShotClassifier(model, LABELS, cache=cache)], samples))
