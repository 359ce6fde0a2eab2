"""From sentences to logits: every way of pooling beside a plain loop that says what is meant."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clipact.cache import Cache
from clipact.classify.template_weights import template_weights
from clipact.classify.text_classifier import TextClassifier, embed_labels, make_text_classifier
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.engines.vectors import unit
from clipact.errors import UsageError
from clipact.models.dual_encoder import DualEncoder
from clipact.models.zoo import Model
from clipact.prompts import LabelDetails, LabelSet, PromptSet
from tests.tiny import TinyText, TinyVisual

LABELS = LabelSet(
    name="three",
    labels=("drink", "UseLaptop", "fall"),
    phrases=("drinking", "using a laptop", "falling"),
    about={
        "drink": LabelDetails(synonyms=("sip", "swallow water"), descriptions=("A cup is lifted.",)),
        "fall": LabelDetails(descriptions=("Someone drops.", "A body lies on the floor.")),
    },
)
TEMPLATES = ["a video of {}.", "{}", "A person is {}, I think."]
WORDS = {
    "drink": {"phrase": ["drinking"], "synonyms": ["sipping", "swallowing water"]},
    "UseLaptop": {"phrase": ["using a laptop"], "synonyms": []},
    "fall": {"phrase": ["falling"], "synonyms": []},
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    encoder = DualEncoder(TinyVisual(), TinyText(), log_scale=1.5, bias=-0.5).eval()
    return Model(name="tiny", encoder=encoder, key="0123456789abcdef" * 4, trained_on=())


def draw_units(seed, count):
    vectors = np.random.default_rng(seed).standard_normal((count, 6)).astype(np.float32)
    return unit(vectors)


@pytest.fixture(scope="module")
def clips():
    return draw_units(1, 7)


def plain(model, clips, words, over_templates, over_words, weights):
    """One sentence, one clip, one label at a time, in torch."""
    encoder, clips = model.encoder, torch.from_numpy(clips)

    def vector(text):
        return encoder.encode_text([text])[0]

    def pool(values):
        return torch.stack(values).mean(0) if over_words == "mean" else torch.stack(values).amax(0)

    planes = []
    for template in TEMPLATES:
        columns = []
        for label in LABELS.labels:
            said = [vector(template.replace("{}", w)) for kind in words for w in WORDS[label].get(kind, [])]
            if "descriptions" in words and label in LABELS.about:
                said += [vector(text) for text in LABELS.about[label].descriptions]
            columns.append(said)
        planes.append(columns)

    def logits(v):
        return encoder.scale * clips @ v - 0.5

    table = []
    for n in range(3):
        count = len(planes[0][n])
        if over_templates == "embeddings":
            each = [F.normalize(sum(p[n][i] for p in planes), dim=0) for i in range(count)]
            if over_words == "mean":
                each = [F.normalize(sum(each), dim=0)]
            table.append(pool([logits(v) for v in each]))
        elif over_templates == "weighted":
            each = [sum(w * logits(p[n][i]) for w, p in zip(weights, planes, strict=True)) for i in range(count)]
            table.append(pool(each))
    if table:
        return torch.stack(table, 1)
    shares = []
    for plane in planes:
        columns = []
        for said in plane:
            each = [F.normalize(sum(said), dim=0)] if over_words == "mean" else said
            columns.append(pool([logits(v) for v in each]))
        shares.append(torch.stack(columns, 1).softmax(1))
    return torch.stack(shares).mean(0).log()


@pytest.mark.parametrize("over_words", ["mean", "max"])
@pytest.mark.parametrize("over_templates", ["embeddings", "probabilities", "weighted"])
@pytest.mark.parametrize("words", [("phrase",), ("phrase", "synonyms"), ("phrase", "synonyms", "descriptions")])
def test_every_wording_equals_a_plain_loop(model, clips, words, over_templates, over_words):
    weights = (0.2, 0.5, 0.3)
    prompts = PromptSet.of(TEMPLATES).worded(words=words, over_templates=over_templates, over_words=over_words)
    vectors = make_text_classifier(model.encode_text, LABELS, prompts)
    if over_templates == "weighted":
        assert vectors.needs_template_weights
        vectors = vectors.weighted(np.array(weights))
    with torch.inference_mode():
        expected = plain(model, clips, words, over_templates, over_words, weights)
    np.testing.assert_allclose(vectors.logits(model, clips), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("over_words", ["mean", "max"])
@pytest.mark.parametrize("over_templates", ["embeddings", "probabilities"])
def test_labels_beside_some_of_others_are_one_set(model, clips, over_templates, over_words):
    prompts = PromptSet.of(TEMPLATES).worded(
        words=("phrase", "synonyms", "descriptions"), over_templates=over_templates, over_words=over_words
    )
    others = LabelSet.of(["read", "juggle", "sing"])
    own, more = (make_text_classifier(model.encode_text, labels, prompts) for labels in (LABELS, others))
    both = own.append(more.only([2, 0]))
    whole = LabelSet(
        name="five",
        labels=(*LABELS.labels, "sing", "read"),
        phrases=(*LABELS.phrases, "singing", "reading"),
        about=LABELS.about,
    )
    expected = make_text_classifier(model.encode_text, whole, prompts)
    assert both.label_ids.tolist() == expected.label_ids.tolist()
    np.testing.assert_allclose(both.logits(model, clips), expected.logits(model, clips), atol=2e-6, rtol=1e-5)
    again = both.only([1, 0, 2, 4])
    np.testing.assert_allclose(
        again.plane_logits(model, clips), expected.plane_logits(model, clips)[..., [1, 0, 2, 4]], atol=1e-6, rtol=1e-6
    )


def test_the_default_is_the_mean_that_embed_groups_gives(model):
    prompts = PromptSet.of(TEMPLATES)
    vectors = make_text_classifier(model.encode_text, LABELS, prompts)
    assert vectors.one_each
    with torch.inference_mode():
        expected = model.encoder.embed_groups(*prompts.sentences(LABELS))
    np.testing.assert_allclose(vectors.rows[0], expected, atol=1e-6, rtol=0)


def test_a_wording_more_encodes_its_own_sentences_alone(model, tmp_path, monkeypatch):
    cache, asked, encode = Cache(tmp_path), [], model.encoder.encode_text
    monkeypatch.setattr(model.encoder, "encode_text", lambda said, **k: asked.append(list(said)) or encode(said))
    kinds = [
        PromptSet.of(TEMPLATES),
        PromptSet.of(TEMPLATES).worded(over_templates="probabilities"),
        PromptSet.of(TEMPLATES).worded(words=("phrase", "synonyms"), over_words="max"),
        PromptSet.of(TEMPLATES).worded(over_templates="weighted"),
    ]
    first = [embed_labels(model, LABELS, prompts, cache=cache) for prompts in kinds]
    again = [embed_labels(model, LABELS, prompts, cache=cache) for prompts in kinds]
    phrases = {one.replace("{}", word) for one in TEMPLATES for label in WORDS.values() for word in label["phrase"]}
    synonyms = {one.replace("{}", word) for one in TEMPLATES for label in WORDS.values() for word in label["synonyms"]}
    assert list(map(set, asked)) == [phrases, synonyms]
    assert sum(map(len, asked)) == len(phrases | synonyms), "each once"
    for one, other in zip(first, again, strict=True):
        assert (one.labels, one.needs_template_weights) == (other.labels, other.needs_template_weights)
        assert np.array_equal(one.rows, other.rows)
        assert np.array_equal(one.label_ids, other.label_ids)


def test_a_classifier_with_several_vectors_a_label_answers_and_has_no_single_ones(model, tmp_path):
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    prompts = PromptSet.of(TEMPLATES).worded(words=("phrase", "synonyms"), over_words="max")
    classifier = ZeroShotClassifier(model, LABELS, prompts=prompts, cache=Cache(tmp_path))
    assert sum(entry.score for entry in classifier.classify_frames(frames).ranked) == pytest.approx(1)
    with pytest.raises(UsageError, match="several vectors"):
        _ = classifier.text_embeddings


def test_templates_without_their_weights_are_no_classifier_yet(model, tmp_path):
    prompts = PromptSet.of(TEMPLATES).worded(over_templates="weighted")
    classifier = ZeroShotClassifier(model, LABELS, prompts=prompts, cache=Cache(tmp_path))
    with pytest.raises(UsageError, match="await their weights"):
        classifier.classify_frames(np.zeros((4, 8, 8, 3), np.uint8))
    weighted = classifier.with_weights(np.array([0.5, 0.25, 0.25]))
    assert weighted.prompts.weights == (0.5, 0.25, 0.25)
    assert weighted.classify_frames(np.zeros((4, 8, 8, 3), np.uint8)).ranked


def zpe(clips, text, reference=None):
    """The authors' get_weights (google/uncertainty-baselines, experimental/multimodal), in numpy: logits [n_img,
    n_prompt, n_cls]; debias_mode "both" with a reference, "test" without; then softmax over prompts."""
    logits = np.einsum("id,pcd->ipc", clips, text)
    expected = logits.mean(0, keepdims=True)
    if reference is not None:
        expected = 0.5 * (np.einsum("id,pcd->ipc", reference, text).mean(0, keepdims=True) + expected)
    scores = (logits - expected).max(-1, keepdims=True).mean(0)[:, 0]
    return np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()


@pytest.mark.parametrize("with_reference", [False, True])
def test_template_weights_are_the_published_ones(model, clips, with_reference):
    prompts = PromptSet.of(TEMPLATES).worded(over_templates="weighted")
    vectors = make_text_classifier(model.encode_text, LABELS, prompts)
    reference = draw_units(2, 9) if with_reference else None
    found = template_weights(model, vectors, clips, reference=reference, batch_size=4)
    text = model.scale * vectors.rows.astype(np.float64)
    expected = zpe(clips.astype(np.float64), text, None if reference is None else reference.astype(np.float64))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.sum().item() == pytest.approx(1)


def test_a_template_that_is_large_for_every_clip_gains_nothing(model):
    generator = np.random.default_rng(0)
    common = np.eye(6, dtype=np.float32)[0]
    clips = draw_units(0, 40)
    clips[:, 0] = 0.7
    rows = generator.standard_normal((3, 6)).astype(np.float32)
    rows[:, 0] = 0
    vectors = TextClassifier(
        rows=np.stack([rows, rows + 5 * common]), label_ids=np.arange(3), labels=3, needs_template_weights=True
    )
    found = template_weights(model, vectors, clips)
    np.testing.assert_allclose(found, [0.5, 0.5], atol=1e-5, rtol=0)


def test_weights_need_clips(model, clips):
    vectors = make_text_classifier(model.encode_text, LABELS, PromptSet.of(TEMPLATES).worded(over_templates="weighted"))
    with pytest.raises(UsageError, match="there are none"):
        template_weights(model, vectors, clips[:0])
