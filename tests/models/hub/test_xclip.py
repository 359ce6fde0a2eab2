"""X-CLIP: transformers' own logits, one answer a clip, and a clear refusal where sentences are to stand alone."""

import copy
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from clipact.cache import Cache
from clipact.classify.calibrated import CalibratedClassifier
from clipact.classify.from_index import IndexClassifier
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.cli.app import app
from clipact.errors import ModelError
from clipact.evaluate import EvalOptions, evaluate_retrieval, manifest_protocol, read_samples
from clipact.label_index import LabelIndex
from clipact.models import zoo
from clipact.models.checkpoint import load_checkpoint
from clipact.models.dual_encoder import normalise_frames
from clipact.models.hub.transformers import quiet_transformers
from clipact.models.save_checkpoint import save_model
from clipact.prompts import LabelSet, PromptSet
from clipact.studies import Grid, lint, sweep
from tests.tiny_transformers import transformers_folder

SENTENCES = ["a man is drinking", "reading", "she walks, slowly."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return transformers_folder(tmp_path_factory.mktemp("models") / "xclip", "xclip")


@pytest.fixture(scope="module")
def ours(folder):
    return zoo.load_model(f"transformers:{folder}", device="cpu")


@pytest.fixture(scope="module")
def theirs(folder):
    from transformers import XCLIPModel

    with quiet_transformers():
        return XCLIPModel.from_pretrained(folder).eval()


def _video(clips, frames):
    return torch.randn(clips, frames, 3, 32, 32, generator=torch.Generator().manual_seed(frames))


@torch.inference_mode()
def test_logits_are_transformers_own(ours, theirs):
    encoder, video = ours.encoder, _video(3, 4)
    clips, sentences = encoder.embed_prompted(video, encoder.text_features(SENTENCES))
    found = torch.cat([encoder.logits(clip[None], beside) for clip, beside in zip(clips, sentences, strict=True)])
    expected = theirs(input_ids=encoder.text.tokenize(SENTENCES), pixel_values=video)
    torch.testing.assert_close(found, expected.logits_per_video, rtol=0, atol=1e-5)
    torch.testing.assert_close(encoder.encode_video(video), expected.video_embeds, rtol=0, atol=1e-6)
    assert found.std() > 1e-3
    alone = F.normalize(encoder.text_features(SENTENCES), dim=-1)
    assert (expected.text_embeds[0] - alone).abs().max() > 1e-3, "the clip changes the sentences"


@torch.inference_mode()
@pytest.mark.parametrize("frames", [1, 3, 7])
def test_any_number_of_frames_and_one_answer_whatever_the_neighbours(ours, frames):
    encoder, video, text = ours.encoder, _video(3, frames), ours.encoder.text_features(SENTENCES)
    together = encoder.embed_prompted(video, text)
    alone = [encoder.embed_prompted(clip, text) for clip in video.split(1)]
    for side in (0, 1):
        torch.testing.assert_close(together[side], torch.cat([one[side] for one in alone]), atol=1e-5, rtol=1e-5)


def test_classify_averages_templates_beside_the_clip_and_views_after_it(ours, tmp_path):
    cache = Cache(tmp_path)
    classifier = ZeroShotClassifier(ours, ["read", "drink"], cache=cache)
    clips = [np.random.default_rng(i).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8) for i in range(2)]
    filled = classifier.prompts.fill(classifier.label_set)
    assert len(filled) > 2
    with torch.inference_mode():
        video = torch.stack([normalise_frames(clip, classifier.spec) for clip in clips])
        features = ours.encoder.text_features([prompt.text for prompt in filled])
        clip, beside = ours.encoder.visual.prompted(ours.encoder.visual.context(video), features)
        own = [[prompt.label == label for prompt in filled] for label in range(2)]
        means = torch.stack([F.normalize(beside, dim=-1)[:, rows].mean(1) for rows in own], dim=1)
        cosines = torch.einsum("bd,bnd->bn", F.normalize(clip, dim=-1), F.normalize(means, dim=-1))
        expected = ours.encoder.scale * cosines
        contexts = ours.encoder.visual.context(video).numpy()
    found, each = classifier.compare(contexts)
    np.testing.assert_allclose(found, expected.mean(0), rtol=0, atol=1e-5)
    np.testing.assert_allclose(each, expected, rtol=0, atol=1e-5)
    assert {entry.label for entry in classifier.classify_frames(clips[0]).top(2)} == {"read", "drink"}
    assert not list(tmp_path.rglob("*.*")), "nothing of the words is kept"


def test_what_needs_sentences_by_themselves_is_refused(ours, tmp_path):
    classifier = ZeroShotClassifier(ours, ["read", "drink"], cache=Cache(tmp_path))
    (tmp_path / "t.csv").write_text("path,label\na.mp4,read\n")
    protocol = manifest_protocol(tmp_path / "t.csv")
    samples = read_samples(protocol, tmp_path, allow_mismatch=True)
    for use in (
        lambda: ours.encoder.encode_text(SENTENCES),
        lambda: ours.encoder.embed_groups(SENTENCES, [0, 0, 1]),
        lambda: classifier.text_embeddings,
        lambda: evaluate_retrieval(ours, samples),
        lambda: lint(LabelSet.of(["read", "drink"]), PromptSet.load("bare"), ours, cache=Cache(tmp_path)),
        lambda: CalibratedClassifier(ours, labels=["read", "drink"], multi_label=True),
        lambda: IndexClassifier(ours, Mock(spec=LabelIndex)),  # which is not looked at
        lambda: sweep(protocol, samples, ours, Grid(templates=("bare",)), options=EvalOptions(cache=Cache(tmp_path))),
    ):
        with pytest.raises(ModelError, match="depends on the video.*clipact classify"):
            use()


def test_an_index_of_sentences_is_refused_by_the_command_line(folder, tmp_path):
    (tmp_path / "labels.txt").write_text("read\ndrink\n")
    source, out = str(tmp_path / "labels.txt"), str(tmp_path / "read.index")
    found = CliRunner().invoke(app, ["index", "build", source, "--out", out, "--model", f"transformers:{folder}"])
    assert isinstance(found.exception, ModelError)
    assert "depends on the video" in str(found.exception)
    assert not (tmp_path / "read.index").exists()


@torch.inference_mode()
def test_in_16_bits_logits_stay_near(ours):
    encoder, video = copy.deepcopy(ours.encoder), _video(2, 4)
    exact = encoder.embed_prompted(video, encoder.text_features(SENTENCES))
    encoder.precision = "bf16"
    near = encoder.embed_prompted(video, encoder.text_features(SENTENCES))
    for one, other in zip(exact, near, strict=True):
        assert other.dtype == torch.float32
        assert not torch.equal(one, other)
        assert (one * other).sum(-1).min() > 0.99


def test_it_can_be_kept_as_a_clipact_folder(ours, tmp_path):
    kept = load_checkpoint(save_model(ours.encoder, tmp_path / "kept", name="kept"), defer_text=True)
    assert kept.text_depends_on_video
    video = _video(2, 4)
    with torch.inference_mode():
        found, expected = (one.embed_prompted(video, one.text_features(SENTENCES)) for one in (kept, ours.encoder))
    assert torch.equal(found[1], expected[1])


def test_another_size_is_refused_in_a_sentence(ours):
    with pytest.raises(ModelError, match="this tower takes"):
        ours.encoder.encode_video(torch.zeros(1, 4, 3, 40, 40))
