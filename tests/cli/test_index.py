import json

import numpy as np
import pytest

from clipact import ZeroShotClassifier, load_model
from clipact.classify.from_index import IndexClassifier
from clipact.label_index import LabelIndex
from clipact.prompts import LabelSet, PromptSet
from tests.cli.test_classify import rows


@pytest.fixture
def verbs(clipact, tiny, tmp_path):
    (tmp_path / "verbs.txt").write_text("# one a line\ndrink\nread\nUseLaptop\n")
    done = clipact("index", "build", tmp_path / "verbs.txt", "--out", tmp_path / "verbs.index", "--model", tiny)
    assert done.code == 0, done.err
    assert done.out.strip() == str(tmp_path / "verbs.index")
    return tmp_path / "verbs.index"


def test_classify_from_an_index_says_what_the_same_labels_say(clipact, tiny, videos, verbs):
    words = ("classify", videos / "a.mp4", videos / "b.mp4", "--model", tiny, "--json", "--labels")
    plain, indexed = rows(clipact(*words, "drink,read,UseLaptop")), rows(clipact(*words, f"index:{verbs}"))
    for one, other in zip(plain, indexed, strict=True):
        assert other.pop("outside") == {"share": pytest.approx(0, abs=1e-9), "error": 0, "labels": 0}
        expected, found = one.pop("predictions"), other.pop("predictions")
        assert [e["label"] for e in found] == [e["label"] for e in expected]
        np.testing.assert_allclose([e["score"] for e in found], [e["score"] for e in expected], rtol=1e-4)
        assert one == other


def test_what_is_not_retrieved_is_stated(tiny, videos, verbs):
    model = load_model(str(tiny))
    index = LabelIndex.open(verbs, model_key=model.key)
    whole = ZeroShotClassifier(model, ["drink", "read", "UseLaptop"]).classify(videos / "a.mp4")
    cut = IndexClassifier(model, index, retrieved=2).classify(videos / "a.mp4")
    assert [e.label for e in cut.ranked] == [e.label for e in whole.ranked[:2]]
    assert cut.outside.labels == 1
    assert cut.outside.share == pytest.approx(whole.ranked[2].score, rel=1e-3)
    assert IndexClassifier(model, index).labels == ("drink", "read", "UseLaptop")
    plain = ZeroShotClassifier(model, ["drink", "read", "UseLaptop"], clips=3)
    ours = IndexClassifier(model, index, clips=3).classify(videos / "a.mp4").agreement
    theirs = plain.classify(videos / "a.mp4").agreement
    assert (ours.views, ours.agreeing) == (theirs.views, theirs.agreeing)
    assert ours.difference_bits == pytest.approx(theirs.difference_bits, abs=1e-6)


def test_another_models_index_is_refused(clipact, tiny, videos, verbs):
    done = clipact("classify", videos / "a.mp4", "--labels", f"index:{verbs}", "--model", "mini")
    assert done.code == 1
    assert "was made by the model" in done.err
    assert done.out == ""


def test_one_index_and_nothing_beside_it(clipact, tiny, videos, verbs):
    done = clipact("classify", videos / "a.mp4", "--labels", f"index:{verbs}", "-l", "eat", "--model", tiny)
    assert done.code == 2
    assert "index add" in done.err


def test_add_remove_query_info(clipact, tiny, videos, verbs, tmp_path):
    (tmp_path / "more.jsonl").write_text('{"text": "eat", "id": 7, "level": 3}\n{"text": "drink"}\n')
    done = clipact("index", "add", verbs, tmp_path / "more.jsonl", "--model", tiny)
    assert (done.code, "1 added" in done.err, "1 were there already" in done.err) == (0, True, True)
    (row,) = rows(clipact("index", "query", verbs, "--text", "eat", "--top", 9, "--model", tiny, "--json"))
    assert {near["text"] for near in row["nearest"]} == {"drink", "read", "UseLaptop", "eat"}
    assert {"cosine", "id", "text", "metadata"} == set(row["nearest"][0])
    assert next(near for near in row["nearest"] if near["text"] == "eat")["metadata"] == {"level": 3}
    done = clipact("index", "query", verbs, videos / "a.mp4", videos / "notes.txt", "--model", tiny)
    assert done.code == 1
    assert "drink" in done.out
    assert "notes.txt" in done.err
    assert clipact("index", "remove", verbs, "7").code == 0
    done = clipact("index", "remove", verbs, "7")
    assert done.code == 1
    assert "'7'" in done.err
    facts = json.loads(clipact("index", "info", verbs, "--json").out)
    assert (facts["entries"], facts["removed"], facts["kind"], facts["prompts"]) == (3, 1, "exact", "action")


def test_a_set_that_says_more_is_indexed_by_its_phrases(clipact, tiny, tmp_path):
    """The default prompts ask for synonyms and descriptions, too."""
    done = clipact("index", "build", "daily-living:ten", "--out", tmp_path / "ten", "--model", tiny)
    assert (done.code, "synonyms and descriptions of daily-living:ten are left out" in done.err) == (0, True), done.err
    text = 'name = "mine"\nlabels = ["juggle", "read"]\n[about.juggle]\nphrase = "throwing balls"\ntags = ["x"]\n'
    (tmp_path / "mine.toml").write_text(text)
    done = clipact("index", "add", tmp_path / "ten", tmp_path / "mine.toml:x", "--model", tiny)
    assert (done.code, "1 added" in done.err) == (0, True), done.err
    model = load_model(str(tiny))
    index = LabelIndex.open(tmp_path / "ten", model_key=model.key)
    labels = LabelSet.of(["read", "juggle"], phrases=["reading", "throwing balls"])
    expected = model.encoder.embed_groups(*PromptSet.load("action").worded(words=("phrase",)).sentences(labels))
    found = index.search_exactly(expected.detach().numpy(), 1).nearest
    assert [entry.text for row in found.rows for entry in index.entries(row)] == ["read", "juggle"]
    np.testing.assert_allclose(found.cosines[:, 0], 1, atol=1e-5)


def test_prompts_that_give_several_vectors_are_not_indexed(clipact, tiny, tmp_path):
    for wording in ('over_templates = "probabilities"', 'words = ["synonyms"]'):
        (tmp_path / "p.toml").write_text(f'name = "p"\ntemplates = ["{{}}"]\n[wording]\n{wording}\n')
        words = ("--out", tmp_path / "i", "--model", tiny, "--prompts", tmp_path / "p.toml")
        done = clipact("index", "build", "daily-living:ten", *words)
        assert (done.code, "an index holds one vector a label, of its phrase" in done.err) == (2, True), done.err


def test_info_prints_what_the_approximation_costs(clipact, tiny, tmp_path):
    (tmp_path / "many.txt").write_text("\n".join(f"action {i}" for i in range(120)))
    words = ("--out", tmp_path / "i", "--model", tiny, "--kind", "hnsw", "--prompts", "bare")
    done = clipact("index", "build", tmp_path / "many.txt", *words)
    assert "recall@10" in done.err
    done = clipact("index", "info", tmp_path / "i")
    for word in ("recall@1 ", "recall@10", "changed by the approximation", "hnsw"):
        assert word in done.out
    assert max(map(len, done.out.splitlines())) <= 100
    quality = json.loads(clipact("index", "info", tmp_path / "i", "--measure", 30, "--json").out)["quality"]
    assert quality["queries"] == 30
    assert 0.9 < quality["recall_10"] <= 1


def test_captions_are_sentences_and_their_columns_are_kept(clipact, tiny, tmp_path):
    (tmp_path / "captions.csv").write_text('path,caption\na.jpg,"A dog, asleep."\nb.jpg,A cat.\nc.jpg,A cat.\n')
    done = clipact("index", "build", tmp_path / "captions.csv", "--out", tmp_path / "i", "--model", tiny)
    assert "1 repeated" in done.err
    (row,) = rows(clipact("index", "query", tmp_path / "i", "-t", "A dog, asleep.", "--model", tiny, "--json"))
    assert row["nearest"][0]["metadata"] == {"path": "a.jpg"}
    assert row["nearest"][0]["cosine"] == pytest.approx(1, abs=1e-5)
    done = clipact("index", "add", tmp_path / "i", "daily-living:ten", "--prompts", "action", "--model", tiny)
    assert done.code == 2
    assert "'none'" in done.err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "path,words\na,b\n", "one of label, caption, text"),
        ("a.csv", "label,n\na\n", "line 2"),
        ("a.jsonl", '{"text": "a"}\nnonsense\n', "line 2"),
        ("a.jsonl", "[1]\n", "object"),
        ("a.txt", "fine\nbad\u200b\u202e\n", "line 2"),
        ("a.txt", "# nothing\n", "empty"),
        ("a.csv", "", "label"),
    ],
)
def test_sources_that_cannot_be_read_say_where(clipact, tiny, tmp_path, name, content, said):
    (tmp_path / name).write_text(content, encoding="utf-8")
    done = clipact("index", "build", tmp_path / name, "--out", tmp_path / "i", "--model", tiny)
    assert done.code == 2, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "i" / "index.json").exists()


def test_wrong_words(clipact, tiny, tmp_path):
    done = clipact("index", "build", "kinetics7000", "--out", tmp_path / "i", "--model", tiny)
    assert (done.code, "did you mean 'kinetics700'" in done.err) == (2, True)
    done = clipact("index", "build", "kinetics700", "--out", tmp_path / "i", "--kind", "flat", "--model", tiny)
    assert (done.code, "ivf-pq" in done.err) == (2, True)
    done = clipact("index", "query", tmp_path / "i", "--model", tiny)
    assert done.code == 2
    done = clipact("index", "info", tmp_path / "i")
    assert (done.code, "clipact index build" in done.err) == (1, True)


def test_a_query_is_seen_in_the_precision_that_is_asked(clipact, tiny, videos, verbs):
    words = ("index", "query", verbs, videos / "a.mp4", "--model", tiny, "--json")
    exact, near, own = (
        [one["cosine"] for one in rows(clipact(*words, *more))[0]["nearest"]]
        for more in (("--precision", "fp32"), ("--precision", "bf16"), ())
    )
    assert own == exact  # it did not learn in 16 bits
    assert near != exact
    np.testing.assert_allclose(near, exact, atol=0.02)
