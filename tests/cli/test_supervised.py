"""A classifier of labels of its own: trained, kept, asked and judged by commands, and never called zero-shot."""

import json
import shutil

import numpy as np
import pytest
import torch

from clipact.cache import Cache
from clipact.classify.base import Recognizer
from clipact.classify.probe import ProbeClassifier
from clipact.classify.supervised import SupervisedClassifier
from clipact.errors import LabelError, UsageError
from clipact.evaluate import EvalOptions, evaluate, manifest_protocol, read_samples
from clipact.evaluate.fit_probes import ProbeConfig, fit_probes
from clipact.models import zoo
from tests.data.drawing import draw_shades
from tests.train import small_run  # noqa: F401  puts "small" into the table

RECIPE = """
name = "own"
trained_on = ["drawn"]
init.visual = { tower = "frame_aggregator", image = { tower = "small", head = { dim = 8, hidden = 8, blocks = 0 } } }
init.text = { tower = "label_embeddings" }
init.clip = { frames = 2, size = [16, 16] }
data = { sources = [{ manifest = "shades.csv", frames = 2 }], workers = 0 }
visual.batch_norm = "frozen" # statistics of pictures of one colour are noise
train = { loss = "cross_entropy", batch = 8, chunk = 4, steps = 12 }
optim = { lr = 0.03, warmup_steps = 0 }
validation = { every_steps = 6, sets = [{ name = "dev", manifest = "shades.csv", split = "test", frames = 2 }] }
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures that are dark or bright, by which one may learn; and those that judge it."""
    folder = tmp_path_factory.mktemp("shades")
    draw_shades(folder, lambda number: {"split": "test" if number > 7 else "train"})
    (folder / "own.toml").write_text(RECIPE)
    return folder


@pytest.fixture
def model(clipact, data):
    out = data / "out"
    if not out.exists():
        assert clipact("train", data / "own.toml", "--data", data, "--out", out, "--verify-grad").code == 0
    return out / "best"


def test_it_answers_its_own_labels_when_asked_for_none(clipact, data, model):
    bright, dark = data / "pictures/11.png", data / "pictures/10.png"
    done = clipact("classify", bright, dark, "--model", model, "--json")
    answers = [json.loads(line) for line in done.out.splitlines()]
    assert [one["predictions"][0]["label"] for one in answers] == ["Bright_day", "dark"]
    assert [one["prompts"] for one in answers] == ["", ""]
    assert sum(entry["score"] for entry in answers[0]["predictions"]) == pytest.approx(1)
    said = clipact("classify", bright, "--model", model).out
    assert said.split()[-2:] == ["·", "supervised"]  # a long path wraps the line
    some = clipact("classify", bright, "--model", model, "--labels", "dark", "--json")
    assert [entry["label"] for entry in json.loads(some.out)["predictions"]] == ["dark"]


def test_what_it_cannot_mean_is_refused(clipact, data, model):
    bright = data / "pictures/11.png"
    for words, said in (
        (("--labels", "darkk"), "did you mean 'dark'"),
        (("--prompts", "bare"), "it has no words"),
    ):
        done = clipact("classify", bright, "--model", model, *words)
        assert (done.code, said in " ".join(done.err.split())) == (2, True), done.err
    done = clipact("classify", bright)
    assert (done.code, "--labels is missing" in done.err) == (2, True)
    with pytest.raises(UsageError, match="answers any words"):
        SupervisedClassifier.load("mini", device="cpu")
    with pytest.raises(LabelError, match="none of the 2 labels"):
        zoo.load_model(str(model), device="cpu").encoder.encode_text(["a bright day"])


def test_a_result_is_never_zero_shot(clipact, data, model, tmp_path):
    shutil.copy(data / "shades.csv", data / "again.csv")
    words = ("eval", data / "again.csv", "--model", model, "--split", "test", "--out", tmp_path, "--json")
    (row,) = map(json.loads, clipact(*words).out.splitlines())
    assert (row["zero_shot"], row["zero_shot_why"]) == (False, "supervised: trained on these labels")
    assert row["figures"][0]["value"] == 1.0
    classifier = SupervisedClassifier.load(str(model), device="cpu")
    assert isinstance(classifier, Recognizer)
    samples = read_samples(manifest_protocol(str(data / "shades.csv"), split="test"), data)
    scores = evaluate(classifier, samples)
    assert scores.labels == classifier.labels == ("Bright_day", "dark")
    one = classifier.classify(data / "pictures/11.png")
    shares = torch.from_numpy(scores.scores).softmax(1).amax(1)
    assert one.score == pytest.approx(shares[scores.samples.index("pictures/11.png")].item(), abs=1e-5)
    seen = classifier.classify_frames(np.full((2, 24, 32, 3), 223, dtype=np.uint8))
    assert seen.label == "Bright_day"


def test_it_is_shown_and_listed(clipact, data, model):
    shown = clipact("models", "show", model).out
    assert "label_embeddings (text)" in shown
    assert "is one of 2 labels: Bright_day, dark" in shown
    assert str(model) in clipact("models", "list", data, "--json").out
    assert "It knows no others." in (model / "MODEL_CARD.md").read_text()


def test_a_run_says_what_it_cannot_learn(clipact, data, tmp_path):
    wrong = data / "wrong"
    wrong.mkdir(exist_ok=True)
    for change, said in (
        ("train.loss=info_nce", None),
        ("init.text={tower='label_embeddings', labels=['dark', 'dusk']}", "'Bright_day' is none of the 2 labels"),
        ("init.text={tower='label_embeddings', dim=9}", "8 features, the text tower 9"),
        ("init.pretrained={tokenizer='x'}", "would have no effect"),
    ):
        done = clipact(
            "train", data / "own.toml", "--data", data, "--out", tmp_path / "o", "--set", change, "--dry-run"
        )
        assert (done.code == 0) == (said is None), done.err
        assert said is None or said in " ".join(done.err.split())


def test_probes_of_its_embeddings(data, model, tmp_path):
    loaded, options = zoo.load_model(str(model), device="cpu"), EvalOptions(cache=Cache(tmp_path))
    learnt, judged = (
        read_samples(manifest_protocol(str(data / "shades.csv"), split=split), data) for split in ("train", "test")
    )
    for probing in (
        ProbeConfig(),
        ProbeConfig(kind="nearest", k=3),
        ProbeConfig(shots=2, draws=3),
        ProbeConfig(shots=1, kind="nearest"),
    ):
        probes = list(fit_probes(loaded, learnt, probing, options=options))
        assert len(probes) == (probing.draws if probing.shots else 1)
        for probe in probes:
            assert isinstance(probe, Recognizer)
            result = evaluate(probe, judged, options=options)
            assert (result.scores.argmax(1) == result.truth).all()
            examples = 8 if probing.shots is None else 2 * probing.shots
            why = f"supervised: a {probing.kind} probe of {examples} examples"
            assert (result.run["zero_shot"], result.run["zero_shot_why"]) == (False, why)
    asked, share = probe.classify(data / "pictures/11.png"), torch.from_numpy(result.scores).softmax(1).amax(1)
    assert (asked.label, asked.prompts) == ("Bright_day", "")
    assert asked.score == pytest.approx(share[result.samples.index("pictures/11.png")].item(), abs=1e-5)
    assert [one.label for one in probe.classify_many([data / "pictures/10.png"])] == ["dark"]
    assert probe.classify_frames(np.full((2, 24, 32, 3), 223, dtype=np.uint8)).label == "Bright_day"
    own = evaluate(next(fit_probes(loaded, learnt, options=options)), learnt, options=options)
    assert own.run["zero_shot_why"] == "trained on 8 of these 8 files"
    with pytest.raises(UsageError, match="ProbeClassifier averages embeddings"):
        evaluate(probe, judged, averaging="logits")
    with pytest.raises(UsageError, match="8 numbers, but the probe knows 2 labels"):
        ProbeClassifier(loaded, probe.probe, ("dark",))
